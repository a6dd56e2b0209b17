//! How wire types are read and written: what they do not know, they keep.
//!
//! [`wire_struct!`] declares a struct with typed fields beside `extra`, a map that holds every
//! field the type has no name for. A value that a typed field cannot tell from an absent one (a
//! `null`, a zero, another shape than the documented one) is kept in `extra` as well, so that what
//! was read is written again as equal JSON.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What [`wire_struct!`] generates: fields read from a map and written into one.
pub(crate) trait Fields: Sized {
    /// Reads the fields; a `type` that was read before is not expected again.
    fn read<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error>;
    /// Writes the `type`, the fields that are set, and what `extra` holds beside them, but no field
    /// that `without` names.
    fn write<M: SerializeMap>(&self, map: &mut M, without: &[&str]) -> Result<(), M::Error>;
}

/// Reads a struct from any format's map.
pub(crate) fn read_struct<'de, T: Fields, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_map(FieldsVisitor(PhantomData))
}

/// Reads a struct from a JSON object in memory.
pub(crate) fn read_object<T: Fields>(object: Map<String, Value>) -> Result<T, serde_json::Error> {
    T::read(serde::de::value::MapDeserializer::new(object.into_iter()))
}

/// Takes an optional field's value: `None` where it is null or has another shape, which is kept.
pub(crate) fn read_lenient<T: DeserializeOwned>(
    value: Value,
    name: &str,
    extra: &mut Map<String, Value>,
) -> Option<T> {
    if !value.is_null() {
        if let Ok(typed) = T::deserialize(&value) {
            return Some(typed);
        }
    }
    extra.insert(name.to_owned(), value);
    None
}

/// The same for a field that has a default: the default itself is kept in `extra` too.
pub(crate) fn read_default<T: DeserializeOwned + Default + PartialEq>(
    value: Value,
    name: &str,
    extra: &mut Map<String, Value>,
) -> T {
    match T::deserialize(&value) {
        Ok(typed) if typed != T::default() => typed,
        _ => {
            extra.insert(name.to_owned(), value);
            T::default()
        }
    }
}

struct FieldsVisitor<T>(PhantomData<T>);

impl<'de, T: Fields> Visitor<'de> for FieldsVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::read(map)
    }
}

/// A map key, borrowed where the input allows it.
pub(crate) struct Key<'de>(pub(crate) Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
            fn visit_string<E>(self, text: String) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text)))
            }
        }
        from.deserialize_str(KeyVisitor)
    }
}

/// Reads an object whose `type` decides what it is, and hands both to `dispatch`.
///
/// The `type` comes first in practice, and then nothing is buffered; where it does not, the object
/// is collected first.
pub(crate) fn read_tagged<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Tagged,
{
    struct TaggedVisitor<T>(PhantomData<T>);
    impl<'de, T: Tagged> Visitor<'de> for TaggedVisitor<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object with a `type`")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
            let mut object = Map::new();
            while let Some(Key(key)) = map.next_key()? {
                if key == "type" && object.is_empty() {
                    let tag: Key<'de> = map.next_value()?;
                    return T::read_as(&tag.0, map);
                }
                object.insert(key.into_owned(), map.next_value()?);
            }
            let Some(Value::String(tag)) = object.remove("type") else {
                return Err(A::Error::missing_field("type"));
            };
            T::read_as(
                &tag,
                serde::de::value::MapDeserializer::new(object.into_iter()),
            )
            .map_err(|error: serde_json::Error| A::Error::custom(error))
        }
    }
    from.deserialize_map(TaggedVisitor(PhantomData))
}

/// An enum over objects that carry their variant's name in `type`.
pub(crate) trait Tagged: Sized {
    /// Reads the fields that remain once `type` was read as `tag`.
    fn read_as<'de, A: MapAccess<'de>>(tag: &str, map: A) -> Result<Self, A::Error>;
}

/// Collects what remains of an object whose `type` is unknown.
pub(crate) fn read_unknown<'de, A: MapAccess<'de>>(
    tag: &str,
    mut map: A,
) -> Result<Map<String, Value>, A::Error> {
    let mut object = Map::new();
    object.insert("type".to_owned(), Value::from(tag));
    while let Some(Key(key)) = map.next_key()? {
        object.insert(key.into_owned(), map.next_value()?);
    }
    Ok(object)
}

/// Writes a struct as a map of its own.
pub(crate) fn write_struct<T: Fields, S: serde::Serializer>(
    value: &T,
    to: S,
) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(None)?;
    value.write(&mut map, &[])?;
    map.end()
}

/// Writes one entry unless it is left out; for use in generated code.
pub(crate) fn write_entry<M: SerializeMap, T: Serialize + ?Sized>(
    map: &mut M,
    name: &str,
    value: &T,
    without: &[&str],
) -> Result<(), M::Error> {
    if without.contains(&name) {
        Ok(())
    } else {
        map.serialize_entry(name, value)
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
            /// Fields that this version does not know, kept and written again.
            pub extra: serde_json::Map<String, serde_json::Value>,
            $( $( $(#[$skip_meta])* pub(crate) $skip: $skip_type, )* )?
        }

        impl $crate::types::wire::Fields for $name {
            #[allow(unused_mut, unused_variables, reason = "a struct may have no field of a kind")]
            fn read<'de, A: serde::de::MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
                let mut extra = serde_json::Map::new();
                $( let mut $field: $crate::types::wire::wire_struct!(@slot $kind $type) = Default::default(); )*
                while let Some($crate::types::wire::Key(key)) = map.next_key()? {
                    $( if key == "type" {
                        let _: &str = $tag;
                        map.next_value::<serde::de::IgnoredAny>()?;
                        continue;
                    } )?
                    $( if key == $crate::types::wire::wire_struct!(@name $field $($wire)?) {
                        $crate::types::wire::wire_struct!(@read $kind $field map key extra);
                        continue;
                    } )*
                    let value = map.next_value()?;
                    extra.insert(key.into_owned(), value);
                }
                Ok($name {
                    $( $field: $crate::types::wire::wire_struct!(
                        @take $kind $field $crate::types::wire::wire_struct!(@name $field $($wire)?)
                    ), )*
                    extra,
                    $( $( $skip: Default::default(), )* )?
                })
            }

            fn write<M: serde::ser::SerializeMap>(
                &self,
                map: &mut M,
                without: &[&str],
            ) -> Result<(), M::Error> {
                $( $crate::types::wire::write_entry(map, "type", $tag, without)?; )?
                $( if let Some(value) = $crate::types::wire::wire_struct!(@set $kind self $field) {
                    $crate::types::wire::write_entry(
                        map, $crate::types::wire::wire_struct!(@name $field $($wire)?), value, without)?;
                } )*
                for (key, value) in &self.extra {
                    $( if key == $crate::types::wire::wire_struct!(@name $field $($wire)?)
                        && $crate::types::wire::wire_struct!(@set $kind self $field).is_some() {
                        continue;
                    } )*
                    $crate::types::wire::write_entry(map, key, value, without)?;
                }
                Ok(())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::types::wire::read_struct(from)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                $crate::types::wire::write_struct(self, to)
            }
        }
    };

    (@type opt $type:ty) => { Option<$type> };
    (@type $kind:ident $type:ty) => { $type };

    (@slot def $type:ty) => { $type };
    (@slot $kind:ident $type:ty) => { Option<$type> };

    (@name $field:ident $wire:literal) => { $wire };
    (@name $field:ident) => { stringify!($field) };

    (@read req $field:ident $map:ident $key:ident $extra:ident) => {
        $field = Some($map.next_value()?)
    };
    (@read opt $field:ident $map:ident $key:ident $extra:ident) => {
        $field = $crate::types::wire::read_lenient($map.next_value()?, &$key, &mut $extra)
    };
    (@read def $field:ident $map:ident $key:ident $extra:ident) => {
        $field = $crate::types::wire::read_default($map.next_value()?, &$key, &mut $extra)
    };

    (@take req $field:ident $name:expr) => {
        $field.ok_or_else(|| <A::Error as serde::de::Error>::missing_field($name))?
    };
    (@take $kind:ident $field:ident $name:expr) => { $field };

    (@set req $self:ident $field:ident) => { Some(&$self.$field) };
    (@set opt $self:ident $field:ident) => { $self.$field.as_ref() };
    (@set def $self:ident $field:ident) => {
        (!$crate::types::wire::is_default(&$self.$field)).then_some(&$self.$field)
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
            /// Anything else, kept as it was sent.
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
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let $crate::types::wire::Key(text) = serde::Deserialize::deserialize(from)?;
                Ok(Self::from(&*text))
            }
        }
    };
}

pub(crate) use {open_enum, wire_struct};

/// Whether a field holds its default, which is not written.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
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
