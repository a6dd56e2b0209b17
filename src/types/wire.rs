//! How wire types are read and written: what they do not know, they keep.
//!
//! [`wire_struct!`] declares a struct with typed fields beside `extra`, a map that holds every
//! field the type has no name for. A value that a typed field cannot tell from an absent one (a
//! `null`, a zero, another shape than the documented one) is kept in `extra` as well, so that what
//! was read is written again as equal JSON.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer, MapDeserializer};
use serde::de::value::{Error as ValueError, SeqAccessDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, Visitor,
};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What [`wire_struct!`] generates: fields read from a map and written into one.
pub(crate) trait Fields: Sized {
    /// Reads the fields; a `type` that was read before is not expected again.
    fn read<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Self::read_or_keep(map)?.map_err(|odd| A::Error::missing_field(odd.missing))
    }
    /// The same, but where a `key` field is missing or has another shape, all that was read is
    /// given back.
    fn read_or_keep<'de, A: MapAccess<'de>>(map: A) -> Result<Result<Self, Odd>, A::Error>;
    /// Writes the `type`, the fields that are set, and what `extra` holds beside them, but no field
    /// that `without` names.
    fn write<M: SerializeMap>(&self, map: &mut M, without: &[&str]) -> Result<(), M::Error>;
}

/// An object that is not the struct it was read as, because a `key` field is missing or odd.
pub(crate) struct Odd {
    /// All that was read; without the `type` of a struct that has a fixed one.
    pub(crate) object: Map<String, Value>,
    pub(crate) missing: &'static str,
}

/// Reads a struct as the value of an optional field: at once where it has no `req` field and so
/// cannot fail, else by way of a [`Value`] that can be kept.
pub(crate) fn read_field_map<'de, T: Fields + DeserializeOwned, A: MapAccess<'de>>(
    map: A,
    always_read: bool,
) -> Result<Result<T, Value>, A::Error> {
    let map = Peeked::new(map)?;
    if always_read && !map.is_number() {
        let read = T::read_or_keep(map)?;
        return Ok(read.map_err(|odd| Value::Object(odd.object)));
    }
    let value = Value::deserialize(MapAccessDeserializer::new(map))?;
    Ok(T::deserialize(&value).map_err(|_| value))
}

/// The one key of the map as which serde_json hands out a number that is no integer, where its
/// feature `arbitrary_precision` is on: any crate of a program can turn it on for all.
const NUMBER: &str = "$serde_json::private::Number";

/// A map whose first key was read already.
struct Peeked<'de, A> {
    first: Option<Key<'de>>,
    map: A,
}

impl<'de, A: MapAccess<'de>> Peeked<'de, A> {
    fn new(mut map: A) -> Result<Self, A::Error> {
        let first = map.next_key()?;
        Ok(Peeked { first, map })
    }

    fn is_number(&self) -> bool {
        self.first.as_ref().is_some_and(|Key(key)| key == NUMBER)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Peeked<'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        match self.first.take() {
            Some(Key(Cow::Borrowed(key))) => seed
                .deserialize(BorrowedStrDeserializer::new(key))
                .map(Some),
            Some(Key(Cow::Owned(key))) => seed.deserialize(key.into_deserializer()).map(Some),
            None => self.map.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Reads a struct from any format's map.
pub(crate) fn read_struct<'de, T: Fields, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_map(FieldsVisitor(PhantomData))
}

/// Reads a struct from a JSON object in memory.
pub(crate) fn read_object<T: Fields>(object: Map<String, Value>) -> Result<T, serde_json::Error> {
    T::read(MapDeserializer::new(object.into_iter()))
}

/// What an optional field can hold.
pub(crate) trait Field: DeserializeOwned {
    /// Reads an object; gives it back where it has another shape.
    fn read_map<'de, A: MapAccess<'de>>(map: A) -> Result<Result<Self, Value>, A::Error> {
        // Not collected by hand: a `Value` knows the map that stands for a number, see `NUMBER`.
        let value = Value::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Self::read_collected(value))
    }

    /// Reads an array; gives it back where it has another shape.
    fn read_seq<'de, A: SeqAccess<'de>>(seq: A) -> Result<Result<Self, Value>, A::Error> {
        Ok(Self::read_collected(collect(Vec::new(), seq)?))
    }

    /// Reads a value; gives it back where it has another shape.
    fn read_collected(value: Value) -> Result<Self, Value> {
        Self::deserialize(&value).map_err(|_| value)
    }
}

impl Field for String {}
impl Field for bool {}
impl Field for u64 {}
impl Field for f64 {}
impl Field for Value {}
impl Field for Map<String, Value> {}

impl<T: Field + Serialize> Field for Vec<T> {
    /// Without a detour over [`Value`]: blocks within blocks would take one on each level.
    fn read_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Result<Self, Value>, A::Error> {
        let mut read = Vec::new();
        while let Some(Lenient(element)) = seq.next_element::<Lenient<T>>()? {
            match element {
                Ok(element) => read.push(element),
                Err(odd) => {
                    // What serde cannot write again does not exist among the wire types.
                    let written = read.iter().map(serde_json::to_value);
                    let mut array: Vec<Value> = written.map(Result::unwrap_or_default).collect();
                    array.push(odd);
                    return collect(array, seq).map(Err);
                }
            }
        }
        Ok(Ok(read))
    }
}

/// Reads the rest of an array.
fn collect<'de, A: SeqAccess<'de>>(mut array: Vec<Value>, mut seq: A) -> Result<Value, A::Error> {
    while let Some(value) = seq.next_element()? {
        array.push(value);
    }
    Ok(Value::Array(array))
}

/// The value of an optional field, or what stands in its place.
pub(crate) struct Lenient<T>(pub(crate) Result<T, Value>);

impl<'de, T: Field> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(LenientVisitor(PhantomData))
            .map(Lenient)
    }
}

struct LenientVisitor<T>(PhantomData<T>);

/// Reads a scalar without a detour over [`Value`].
fn read_scalar<T: DeserializeOwned, S>(scalar: S) -> Result<T, Value>
where
    S: Copy + Into<Value> + for<'de> IntoDeserializer<'de, ValueError>,
{
    T::deserialize(scalar.into_deserializer()).map_err(|_| scalar.into())
}

impl<'de, T: Field> Visitor<'de> for LenientVisitor<T> {
    type Value = Result<T, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(read_scalar(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(read_scalar(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(read_scalar(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(read_scalar(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        let from = BorrowedStrDeserializer::<ValueError>::new(text);
        Ok(T::deserialize(from).map_err(|_| Value::from(text)))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Err(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        T::read_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::read_map(map)
    }
}

/// Reads an optional field; `None` where it is null or has another shape, which is kept.
pub(crate) fn read_optional<'de, T: Field, A: MapAccess<'de>>(
    map: &mut A,
    name: &str,
    extra: &mut Map<String, Value>,
) -> Result<Option<T>, A::Error> {
    let Lenient(value) = map.next_value()?;
    match value {
        Ok(value) => {
            // Of a repeated field the last counts.
            if !extra.is_empty() {
                extra.remove(name);
            }
            Ok(Some(value))
        }
        Err(odd) => {
            extra.insert(name.to_owned(), odd);
            Ok(None)
        }
    }
}

/// The same for a field that has a default: a default that was sent is kept in `extra`.
pub(crate) fn read_default<'de, T, A>(
    map: &mut A,
    name: &str,
    extra: &mut Map<String, Value>,
) -> Result<T, A::Error>
where
    T: Field + Serialize + Absent,
    A: MapAccess<'de>,
{
    let value = read_optional(map, name, extra)?.unwrap_or_else(T::absent);
    if is_absent(&value) && !extra.contains_key(name) {
        keep(extra, name, &value);
    }
    Ok(value)
}

/// Keeps a field as the JSON that it is.
pub(crate) fn keep<T: Serialize>(extra: &mut Map<String, Value>, name: &str, value: &T) {
    // A value that serde cannot write again does not exist among the wire types.
    let value = serde_json::to_value(value).unwrap_or_default();
    extra.insert(name.to_owned(), value);
}

/// What a `def` field is while nothing was said. A trait of our own, because not every type that
/// needs one has a default that would make sense to users.
pub(crate) trait Absent: PartialEq {
    /// That value, which is not written.
    fn absent() -> Self;
}

impl<T: Default + PartialEq> Absent for T {
    fn absent() -> T {
        T::default()
    }
}

/// Whether nothing was said, or nothing else than the default.
pub(crate) fn is_absent<T: Absent>(value: &T) -> bool {
    *value == T::absent()
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
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            read_tagged_map(map)
        }
    }
    from.deserialize_map(TaggedVisitor(PhantomData))
}

fn read_tagged_map<'de, T: Tagged, A: MapAccess<'de>>(mut map: A) -> Result<T, A::Error> {
    let mut object = Map::new();
    while let Some(Key(key)) = map.next_key()? {
        if key == "type" && object.is_empty() {
            match map.next_value()? {
                Tag::Text(tag) => return T::read_as(&tag, map),
                Tag::Odd(value) => object.insert(key.into_owned(), value),
            };
            continue;
        }
        object.insert(key.into_owned(), map.next_value()?);
    }
    let tag = match object.get("type") {
        Some(Value::String(tag)) => tag.clone(),
        _ => return T::read_untagged(object).ok_or_else(|| A::Error::missing_field("type")),
    };
    object.remove("type");
    T::read_as(&tag, MapDeserializer::new(object.into_iter()))
        .map_err(|error: serde_json::Error| A::Error::custom(error))
}

/// Reads an enum that any object is, whatever its `type`, as an element of an optional field.
pub(crate) fn read_any_tagged<'de, T: Tagged, A: MapAccess<'de>>(
    map: A,
) -> Result<Result<T, Value>, A::Error> {
    let map = Peeked::new(map)?;
    match map.is_number() {
        true => Value::deserialize(MapAccessDeserializer::new(map)).map(Err),
        false => read_tagged_map(map).map(Ok),
    }
}

/// An enum over objects that carry their variant's name in `type`.
pub(crate) trait Tagged: Sized {
    /// Reads the fields that remain once `type` was read as `tag`.
    fn read_as<'de, A: MapAccess<'de>>(tag: &str, map: A) -> Result<Self, A::Error>;

    /// What an object is whose `type` is missing or no string; `None` is an error.
    fn read_untagged(object: Map<String, Value>) -> Option<Self> {
        let _ = object;
        None
    }
}

/// The value of a `type`.
enum Tag<'de> {
    Text(Cow<'de, str>),
    Odd(Value),
}

impl<'de> Deserialize<'de> for Tag<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct TagVisitor;
        impl<'de> Visitor<'de> for TagVisitor {
            type Value = Tag<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Tag<'de>, E> {
                Ok(Tag::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Tag<'de>, E> {
                Ok(Tag::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Tag<'de>, E> {
                Ok(Tag::Odd(Value::Null))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Tag<'de>, E> {
                Ok(Tag::Odd(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Tag<'de>, E> {
                Ok(Tag::Odd(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Tag<'de>, E> {
                Ok(Tag::Odd(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Tag<'de>, E> {
                Ok(Tag::Odd(value.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Tag<'de>, A::Error> {
                Value::deserialize(SeqAccessDeserializer::new(seq)).map(Tag::Odd)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tag<'de>, A::Error> {
                Value::deserialize(MapAccessDeserializer::new(map)).map(Tag::Odd)
            }
        }
        from.deserialize_any(TagVisitor)
    }
}

/// Collects what remains of an object whose `type` is unknown.
pub(crate) fn read_unknown<'de, A: MapAccess<'de>>(
    tag: &str,
    map: A,
) -> Result<Map<String, Value>, A::Error> {
    let mut object = Map::new();
    object.insert("type".to_owned(), Value::from(tag));
    read_rest(object, map)
}

fn read_rest<'de, A: MapAccess<'de>>(
    mut object: Map<String, Value>,
    mut map: A,
) -> Result<Map<String, Value>, A::Error> {
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

/// Declares a wire struct: `req` and `key` fields must be there, `opt` ones are `Option`, `def` ones
/// have a default that is not written unless it was read. Without a `req` field the rest cannot be
/// read; without a `key` field it can, and [`Fields::read_or_keep`] gives it back.
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
            fn read_or_keep<'de, A: serde::de::MapAccess<'de>>(
                mut map: A,
            ) -> Result<Result<Self, $crate::types::wire::Odd>, A::Error> {
                let mut extra = serde_json::Map::new();
                $( let mut $field: $crate::types::wire::wire_struct!(@slot $kind $type) =
                    $crate::types::wire::wire_struct!(@initial $kind); )*
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
                let mut missing: Option<&'static str> = None;
                $( $crate::types::wire::wire_struct!(
                    @check $kind $field missing
                    $crate::types::wire::wire_struct!(@name $field $($wire)?)
                ); )*
                if let Some(missing) = missing {
                    $( if let Some(value) = $crate::types::wire::wire_struct!(@was_read $kind $field) {
                        let name = $crate::types::wire::wire_struct!(@name $field $($wire)?);
                        $crate::types::wire::keep(&mut extra, name, value);
                    } )*
                    return Ok(Err($crate::types::wire::Odd { object: extra, missing }));
                }
                Ok(Ok($name {
                    $( $field: $crate::types::wire::wire_struct!(
                        @take $kind $field $crate::types::wire::wire_struct!(@name $field $($wire)?)
                    ), )*
                    extra,
                    $( $( $skip: Default::default(), )* )?
                }))
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

        impl $crate::types::wire::Field for $name {
            fn read_map<'de, A: serde::de::MapAccess<'de>>(
                map: A,
            ) -> Result<Result<Self, serde_json::Value>, A::Error> {
                const ALWAYS_READ: bool =
                    true $( && $crate::types::wire::wire_struct!(@may_miss $kind) )*;
                $crate::types::wire::read_field_map::<Self, A>(map, ALWAYS_READ)
            }
        }
    };

    (@may_miss req) => { false };
    (@may_miss $kind:ident) => { true };

    (@type opt $type:ty) => { Option<$type> };
    (@type $kind:ident $type:ty) => { $type };

    (@initial def) => { $crate::types::wire::Absent::absent() };
    (@initial $kind:ident) => { None };

    (@check key $field:ident $missing:ident $name:expr) => {
        if $field.is_none() {
            $missing = $missing.or(Some($name));
        }
    };
    (@check $kind:ident $field:ident $missing:ident $name:expr) => {};

    (@was_read def $field:ident) => {
        (!$crate::types::wire::is_absent(&$field)).then_some(&$field)
    };
    (@was_read $kind:ident $field:ident) => { $field.as_ref() };

    (@slot def $type:ty) => { $type };
    (@slot $kind:ident $type:ty) => { Option<$type> };

    (@name $field:ident $wire:literal) => { $wire };
    (@name $field:ident) => { stringify!($field) };

    (@read req $field:ident $map:ident $key:ident $extra:ident) => {
        $field = Some($map.next_value()?)
    };
    (@read key $field:ident $map:ident $key:ident $extra:ident) => {
        $crate::types::wire::wire_struct!(@read opt $field $map $key $extra)
    };
    (@read opt $field:ident $map:ident $key:ident $extra:ident) => {
        $field = $crate::types::wire::read_optional(&mut $map, &$key, &mut $extra)?
    };
    (@read def $field:ident $map:ident $key:ident $extra:ident) => {
        $field = $crate::types::wire::read_default(&mut $map, &$key, &mut $extra)?
    };

    (@take req $field:ident $name:expr) => {
        $field.ok_or_else(|| <A::Error as serde::de::Error>::missing_field($name))?
    };
    (@take key $field:ident $name:expr) => {
        $field.ok_or_else(|| <A::Error as serde::de::Error>::missing_field($name))?
    };
    (@take $kind:ident $field:ident $name:expr) => { $field };

    (@set req $self:ident $field:ident) => { Some(&$self.$field) };
    (@set key $self:ident $field:ident) => { Some(&$self.$field) };
    (@set opt $self:ident $field:ident) => { $self.$field.as_ref() };
    (@set def $self:ident $field:ident) => {
        (!$crate::types::wire::is_absent(&$self.$field)).then_some(&$self.$field)
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
                to.serialize_str(self.as_str())
            }
        }

        impl $crate::types::wire::Field for $name {}

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let $crate::types::wire::Key(text) = serde::Deserialize::deserialize(from)?;
                Ok(Self::from(&*text))
            }
        }
    };
}

pub(crate) use {open_enum, wire_struct};

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
