//! How wire types are read and written: what they do not know, they keep.
//!
//! [`wire_struct!`] declares a struct with typed fields beside `extra`, a map that holds every
//! field the type has no name for. A value that a typed field cannot tell from an absent one (a
//! `null`, a zero, another shape than the documented one) is kept in `extra` as well, so that what
//! was read is written again as equal JSON.

use std::fmt;

use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::{JsonView, ParsedJson, ParsedObject};

/// What [`wire_struct!`] generates: fields read from an object and written as its entries.
pub(crate) trait WireStruct: Sized {
    /// Reads the fields; a `type` that tells this struct from others is not looked at.
    fn read_fields(object: &ParsedObject<'_>) -> Result<Self, Mismatch>;
    /// The `type`, the fields that are set, and what `extra` holds beside them.
    fn entries(&self) -> Vec<(&str, JsonView<'_>)>;
}

/// What a field can hold.
pub(crate) trait WireValue: Sized {
    fn read(json: &ParsedJson<'_>) -> Result<Self, Mismatch>;
    fn write(&self) -> JsonView<'_>;
}

/// Why JSON is not what it was to be read as.
#[derive(Debug, PartialEq)]
pub(crate) enum Mismatch {
    /// A field that must be there is not.
    Missing(&'static str),
    /// It is something else than expected.
    WrongType {
        found: &'static str,
        expected: &'static str,
        /// In which field it was.
        field: Option<&'static str>,
    },
}

impl Mismatch {
    /// `json` is not what was expected.
    pub(crate) fn wrong_type(json: &ParsedJson<'_>, expected: &'static str) -> Mismatch {
        Mismatch::WrongType {
            found: json.kind(),
            expected,
            field: None,
        }
    }
}

impl fmt::Display for Mismatch {
    /// In the words that serde has for it, but without quotes around the field: what is quoted is cut
    /// off where it may be part of an answer.
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

/// Reads a wire type from any format.
pub(crate) fn deserialize<'de, T: WireValue, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::read(&ParsedJson::deserialize(from)?).map_err(D::Error::custom)
}

/// Writes a wire type in any format.
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

pub(crate) fn as_object<'j, 'a>(
    json: &'j ParsedJson<'a>,
) -> Result<&'j ParsedObject<'a>, Mismatch> {
    let mismatch = || Mismatch::wrong_type(json, "an object");
    json.as_object().ok_or_else(mismatch)
}

/// Reads a variant of an enum that keeps what has another shape than the documented one.
pub(crate) fn read_variant<T: WireStruct, E>(
    object: &ParsedObject<'_>,
    variant: impl FnOnce(T) -> E,
) -> Option<E> {
    T::read_fields(object).ok().map(variant)
}

/// Reads a field that must be there.
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

/// Reads a field that need not be there; what is null or has another shape is kept.
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

/// The same for a field that has a default: a default that was sent is kept.
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

/// What a `def` field is while nothing was said. A trait of our own, because not every type that
/// needs one has a default that would make sense to users.
pub(crate) trait WireDefault: PartialEq {
    /// That value, which is not written.
    fn wire_default() -> Self;
}

impl<T: Default + PartialEq> WireDefault for T {
    fn wire_default() -> T {
        T::default()
    }
}

/// Whether nothing was said, or nothing else than the default.
pub(crate) fn is_wire_default<T: WireDefault>(value: &T) -> bool {
    *value == T::wire_default()
}

/// Appends what `extra` holds, unless a field that is set stands for it.
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

/// Declares a wire struct: `req` fields must be there, `opt` ones are `Option`, `def` ones have a
/// default that is not written unless it was read.
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
            /// Fields that this version does not know, kept and written again; also known ones that
            /// came as null, as their default or in another shape.
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
                let most = ["type", $( stringify!($field), )*].len();
                let mut entries = Vec::with_capacity(most);
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

/// Declares an enum over strings that keeps the strings it does not know.
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
            /// Anything else, kept as it was sent. A later version may have a variant for it:
            /// compare with `as_str()`, which stays the same then, rather than with this.
            Other(String),
        }

        impl $name {
            /// The string on the wire.
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
        /// A struct of every kind of field.
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
    fn what_was_read_is_written_again_as_equal_json() {
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
    fn a_set_field_wins_over_what_was_kept() {
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
    fn of_a_repeated_field_the_last_counts() {
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
    fn what_is_written_takes_no_more_memory_than_there_are_fields() {
        let sample: Sample = serde_json::from_str(r#"{"name":"a","note":"b"}"#).unwrap();
        assert_eq!(sample.entries().capacity(), 4);
    }

    #[test]
    fn a_missing_required_field_is_named() {
        let error = serde_json::from_str::<Sample>(r#"{"type":"sample"}"#).unwrap_err();
        assert!(error.to_string().contains("`name`"), "{error}");
    }

    #[test]
    fn an_unknown_string_is_kept() {
        assert_eq!(Colour::from("red"), Colour::Red);
        let green: Colour = serde_json::from_str("\"green\"").unwrap();
        assert_eq!(green, Colour::Other("green".into()));
        assert_eq!(serde_json::to_string(&green).unwrap(), "\"green\"");
    }
}
