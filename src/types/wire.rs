//! Traits and macros with which wire types are read from JSON and written as JSON without loss.
//!
//! [`wire_struct!`] declares a struct with typed fields and the map `extra`, which holds every
//! field that the type does not declare. `extra` also holds values that a typed field would lose: a
//! `null`, an explicit default such as zero, a value of another type than the documented one. So
//! whatever is read is written again as equal JSON. [`open_enum!`] does the same for enums over
//! strings.

use std::fmt;

use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::{JsonView, ParsedJson, ParsedObject};

/// A struct declared with [`wire_struct!`]: read from an object's fields and written as its
/// entries.
pub(crate) trait WireStruct: Sized {
    /// Reads the fields. The value of a `type` tag is not checked: the caller chose the struct by
    /// it.
    fn read_fields(object: &ParsedObject<'_>) -> Result<Self, Mismatch>;
    /// Returns the `type` tag, the fields that are set, and the remaining entries of `extra`.
    fn entries(&self) -> Vec<(&str, JsonView<'_>)>;
}

/// A type that a field of a wire type can have.
pub(crate) trait WireValue: Sized {
    fn read(json: &ParsedJson<'_>) -> Result<Self, Mismatch>;
    fn write(&self) -> JsonView<'_>;
}

/// Why a JSON value could not be read as the expected type.
#[derive(Debug, PartialEq)]
pub(crate) enum Mismatch {
    /// A required field is missing.
    Missing(&'static str),
    /// The value has another JSON type than expected.
    WrongType {
        found: &'static str,
        expected: &'static str,
        /// The innermost field that holds the value, if any.
        field: Option<&'static str>,
    },
}

impl Mismatch {
    /// Reports that `json` has another type than `expected`, such as "a string".
    pub(crate) fn wrong_type(json: &ParsedJson<'_>, expected: &'static str) -> Mismatch {
        Mismatch::WrongType {
            found: json.kind(),
            expected,
            field: None,
        }
    }
}

impl fmt::Display for Mismatch {
    /// Uses serde's wording, but without quotes around the field name: error texts drop quoted
    /// parts of serde messages, since these may contain response text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Missing(field) => write!(f, "missing field `{field}`"),
            Mismatch::WrongType {
                found,
                expected,
                field,
            } => {
                write!(f, "invalid type: {found}, expected {expected}")?;
                field.map_or(Ok(()), |field| write!(f, " in the field {field}"))
            }
        }
    }
}

/// Implements `Deserialize` for a wire type, from any serde format.
pub(crate) fn deserialize<'de, T: WireValue, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::read(&ParsedJson::deserialize(from)?).map_err(D::Error::custom)
}

/// Implements `Serialize` for a wire type, to any serde format.
pub(crate) fn serialize<T: WireValue, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    value.write().serialize(to)
}

macro_rules! scalar {
    ($type:ty, $expected:literal, $read:expr, $write:expr) => {
        impl WireValue for $type {
            fn read(json: &ParsedJson<'_>) -> Result<Self, Mismatch> {
                let read: fn(&ParsedJson<'_>) -> Option<Self> = $read;
                read(json).ok_or_else(|| Mismatch::wrong_type(json, $expected))
            }
            fn write(&self) -> JsonView<'_> {
                let write: fn(&Self) -> JsonView<'_> = $write;
                write(self)
            }
        }
    };
}

scalar!(
    String,
    "a string",
    |json| json.as_str().map(str::to_owned),
    |text| JsonView::Text(text)
);
scalar!(bool, "a boolean", |json| json.as_bool(), |value| {
    JsonView::Bool(*value)
});
scalar!(
    u64,
    "an unsigned integer",
    |json| json.as_number()?.as_u64(),
    |number| JsonView::Unsigned(*number)
);
scalar!(
    f64,
    "a number",
    |json| json.as_number()?.as_f64(),
    |number| JsonView::Float(*number)
);
scalar!(
    Map<String, Value>,
    "an object",
    |json| json.as_object().map(ParsedObject::to_map),
    |map| JsonView::Map(map)
);
scalar!(Value, "a value", |json| Some(json.into()), |value| {
    JsonView::Value(value)
});

impl<T: WireValue> WireValue for Vec<T> {
    fn read(json: &ParsedJson<'_>) -> Result<Self, Mismatch> {
        match json {
            ParsedJson::Array(array) => array.iter().map(T::read).collect(),
            other => Err(Mismatch::wrong_type(other, "an array")),
        }
    }

    fn write(&self) -> JsonView<'_> {
        JsonView::Array(self.iter().map(T::write).collect())
    }
}

/// Returns the object, or a mismatch if `json` is something else.
pub(crate) fn as_object<'j, 'a>(
    json: &'j ParsedJson<'a>,
) -> Result<&'j ParsedObject<'a>, Mismatch> {
    let mismatch = || Mismatch::wrong_type(json, "an object");
    json.as_object().ok_or_else(mismatch)
}

/// Reads a variant of an enum, or returns `None` if `object` does not have the variant's documented
/// shape; the enum then keeps the object in its `Other` variant.
pub(crate) fn read_variant<T: WireStruct, E>(
    object: &ParsedObject<'_>,
    variant: impl FnOnce(T) -> E,
) -> Option<E> {
    T::read_fields(object).ok().map(variant)
}

/// Reads a required field.
pub(crate) fn read_required<T: WireValue>(
    json: Option<&ParsedJson<'_>>,
    name: &'static str,
) -> Result<T, Mismatch> {
    T::read(json.ok_or(Mismatch::Missing(name))?).map_err(|mismatch| match mismatch {
        Mismatch::WrongType {
            found,
            expected,
            field,
        } => Mismatch::WrongType {
            found,
            expected,
            field: field.or(Some(name)),
        },
        missing => missing,
    })
}

/// Reads an optional field. A null or a value of another type is kept in `extra`.
pub(crate) fn read_optional<T: WireValue>(
    json: Option<&ParsedJson<'_>>,
    name: &'static str,
    extra: &mut Map<String, Value>,
) -> Option<T> {
    let json = json?;
    let read = match json {
        ParsedJson::Null => None,
        json => T::read(json).ok(),
    };
    if read.is_none() {
        extra.insert(name.to_owned(), json.into());
    }
    read
}

/// Reads a field that has a default. Like [`read_optional`]; also keeps an explicit default in
/// `extra`.
pub(crate) fn read_defaulted<T: WireValue + WireDefault>(
    json: Option<&ParsedJson<'_>>,
    name: &'static str,
    extra: &mut Map<String, Value>,
) -> T {
    let read = read_optional(json, name, extra).unwrap_or_else(T::wire_default);
    if let Some(json) = json.filter(|_| is_wire_default(&read) && !extra.contains_key(name)) {
        extra.insert(name.to_owned(), json.into());
    }
    read
}

/// The default of a `def` field. A trait of our own, because some types need a default on the wire
/// (such as `Role`) but should not offer `Default` to users.
pub(crate) trait WireDefault: PartialEq {
    /// Returns the value of an absent field; this value is not written.
    fn wire_default() -> Self;
}

impl<T: Default + PartialEq> WireDefault for T {
    fn wire_default() -> T {
        T::default()
    }
}

/// Whether `value` is the default, so that it need not be written.
pub(crate) fn is_wire_default<T: WireDefault>(value: &T) -> bool {
    *value == T::wire_default()
}

/// Appends the entries of `extra` whose keys are not among `entries` already: a field that is set
/// wins.
pub(crate) fn write_extra<'a>(
    extra: &'a Map<String, Value>,
    entries: &mut Vec<(&'a str, JsonView<'a>)>,
) {
    let set = entries.len();
    for (key, value) in extra {
        if entries[..set].iter().all(|(name, _)| name != key) {
            entries.push((key, JsonView::Value(value)));
        }
    }
}

/// Declares a wire struct. `req` fields are required, `opt` fields are `Option`, and `def` fields
/// have a default that is written only if it was read. `as "tag"` writes the tag as the struct's
/// `type`; `= "name"` gives the field's name on the wire; `skip` fields are not on the wire.
macro_rules! wire_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(as $tag:literal)? {
            $( $(#[$field_meta:meta])* $kind:ident $field:ident $(= $wire:literal)? : $type:ty ),* $(,)?
        }
        $( skip { $( $(#[$skip_meta:meta])* $skip:ident : $skip_type:ty ),* $(,)? } )?
    ) => {
        $(#[$meta])*
        #[non_exhaustive]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $crate::types::wire::wire_struct!(@type $kind $type), )*
            /// Fields that this version does not know: kept, and written again. Also holds known
            /// fields that were read as null, as their default or with another type.
            pub extra: serde_json::Map<String, serde_json::Value>,
            $( $( $(#[$skip_meta])* pub(crate) $skip: $skip_type, )* )?
        }

        impl $crate::types::wire::WireStruct for $name {
            fn read_fields(
                object: &$crate::types::json::ParsedObject<'_>,
            ) -> Result<Self, $crate::types::wire::Mismatch> {
                let mut extra = serde_json::Map::new();
                let [ $( $crate::types::wire::wire_struct!(@type_of $tag), )? $( $field, )* ] = object.split(
                    &[
                        $( $crate::types::wire::wire_struct!(@type_name $tag), )?
                        $( $crate::types::wire::wire_struct!(@name $field $($wire)?), )*
                    ],
                    &mut extra,
                );
                $( let $field = $crate::types::wire::wire_struct!(
                    @read $kind $field extra $crate::types::wire::wire_struct!(@name $field $($wire)?)
                ); )*
                Ok($name {
                    $( $field, )*
                    extra,
                    $( $( $skip: Default::default(), )* )?
                })
            }

            fn entries(&self) -> Vec<(&str, $crate::types::json::JsonView<'_>)> {
                let capacity = ["type", $( stringify!($field), )*].len();
                let mut entries = Vec::with_capacity(capacity);
                $( entries.push(("type", $crate::types::json::JsonView::Text($tag))); )?
                $( if let Some(value) = $crate::types::wire::wire_struct!(@set $kind self $field) {
                    let name = $crate::types::wire::wire_struct!(@name $field $($wire)?);
                    entries.push((name, $crate::types::wire::WireValue::write(value)));
                } )*
                $crate::types::wire::write_extra(&self.extra, &mut entries);
                entries
            }
        }

        impl $crate::types::wire::WireValue for $name {
            fn read(
                json: &$crate::types::json::ParsedJson<'_>,
            ) -> Result<Self, $crate::types::wire::Mismatch> {
                $crate::types::wire::WireStruct::read_fields($crate::types::wire::as_object(json)?)
            }

            fn write(&self) -> $crate::types::json::JsonView<'_> {
                $crate::types::json::JsonView::Object($crate::types::wire::WireStruct::entries(self))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::types::wire::deserialize(from)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                $crate::types::wire::serialize(self, to)
            }
        }
    };

    (@type opt $type:ty) => { Option<$type> };
    (@type $kind:ident $type:ty) => { $type };

    (@type_of $tag:literal) => { _ };
    (@type_name $tag:literal) => { "type" };

    (@name $field:ident $wire:literal) => { $wire };
    (@name $field:ident) => { stringify!($field) };

    (@read req $json:ident $extra:ident $name:expr) => {
        $crate::types::wire::read_required($json, $name)?
    };
    (@read opt $json:ident $extra:ident $name:expr) => {
        $crate::types::wire::read_optional($json, $name, &mut $extra)
    };
    (@read def $json:ident $extra:ident $name:expr) => {
        $crate::types::wire::read_defaulted($json, $name, &mut $extra)
    };

    (@set req $self:ident $field:ident) => { Some(&$self.$field) };
    (@set opt $self:ident $field:ident) => { $self.$field.as_ref() };
    (@set def $self:ident $field:ident) => {
        (!$crate::types::wire::is_wire_default(&$self.$field)).then_some(&$self.$field)
    };
}

/// Declares an enum over strings that keeps unknown strings in its variant `Other`.
macro_rules! open_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $text:literal ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )*
            /// Any other value, kept as received. Compare [`as_str`](Self::as_str) rather than this
            /// variant: a later version may add a variant for the value.
            Other(String),
        }

        impl $name {
            /// Returns the string on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $( Self::$variant => $text, )*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $( $text => Self::$variant, )*
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::from(text.as_str())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                $crate::types::wire::serialize(self, to)
            }
        }

        impl $crate::types::wire::WireValue for $name {
            fn read(
                json: &$crate::types::json::ParsedJson<'_>,
            ) -> Result<Self, $crate::types::wire::Mismatch> {
                let mismatch = || $crate::types::wire::Mismatch::wrong_type(json, "a string");
                json.as_str().map(Self::from).ok_or_else(mismatch)
            }

            fn write(&self) -> $crate::types::json::JsonView<'_> {
                $crate::types::json::JsonView::Text(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::types::wire::deserialize(from)
            }
        }
    };
}

pub(crate) use {open_enum, wire_struct};

#[cfg(test)]
mod tests {
    use super::WireStruct;
    use serde_json::{Value, json};

    wire_struct! {
        /// A struct with one field of each kind.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Sample as "sample" {
            /// Required.
            req name: String,
            /// Optional.
            opt note: String,
            /// Defaulted, under another name.
            def count = "the_count": u64,
        }
    }

    open_enum! {
        /// Two colours.
        pub enum Colour { Red = "red", Blue = "blue" }
    }

    #[test]
    fn struct_is_written_as_it_was_read() {
        for text in [
            r#"{"type":"sample","name":"a"}"#,
            r#"{"type":"sample","name":"a","note":null,"the_count":0}"#,
            r#"{"type":"sample","name":"a","note":"b","the_count":7,"new":{"deep":[1,null]}}"#,
            r#"{"name":"a","type":"sample","note":["odd"],"the_count":"odd"}"#,
        ] {
            let before: Value = serde_json::from_str(text).unwrap();
            let sample: Sample = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(&sample).unwrap(), before, "{text}");
        }
    }

    #[test]
    fn set_field_wins_over_a_kept_value() {
        let mut sample: Sample =
            serde_json::from_value(json!({"name": "a", "note": null, "the_count": 0})).unwrap();
        sample.note = Some("b".into());
        sample.count = 3;
        assert_eq!(
            serde_json::to_value(&sample).unwrap(),
            json!({"type": "sample", "name": "a", "note": "b", "the_count": 3})
        );
    }

    #[test]
    fn last_of_repeated_fields_counts() {
        for text in [
            r#"{"name":"a","note":["odd"],"note":"b","the_count":0,"the_count":7}"#,
            r#"{"name":"b","note":"b","note":null,"the_count":"odd","the_count":0,"name":"a"}"#,
        ] {
            let sample: Sample = serde_json::from_str(text).unwrap();
            let mut once: Value = serde_json::from_str(text).unwrap();
            assert_eq!(
                serde_json::from_value::<Sample>(once.clone()).unwrap(),
                sample
            );
            once["type"] = json!("sample");
            assert_eq!(serde_json::to_value(&sample).unwrap(), once);
        }
    }

    #[test]
    fn entries_are_allocated_exactly() {
        let sample: Sample = serde_json::from_str(r#"{"name":"a","note":"b"}"#).unwrap();
        assert_eq!(sample.entries().capacity(), 4);
    }

    #[test]
    fn error_names_a_missing_required_field() {
        let error = serde_json::from_str::<Sample>(r#"{"type":"sample"}"#).unwrap_err();
        assert!(error.to_string().contains("`name`"), "{error}");
    }

    #[test]
    fn open_enum_keeps_an_unknown_string() {
        assert_eq!(Colour::from("red"), Colour::Red);
        let green: Colour = serde_json::from_str("\"green\"").unwrap();
        assert_eq!(green, Colour::Other("green".into()));
        assert_eq!(serde_json::to_string(&green).unwrap(), "\"green\"");
    }
}
