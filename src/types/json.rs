//! JSON as it came, before anyone asked what it means, and JSON about to be sent.
//!
//! All wire types are read from [`Json`] and written as [`Written`], and none has a parser or a
//! writer of its own: a program holds one of each for all of them. Text without escapes stays where
//! it is and is borrowed.

use std::borrow::Cow;
use std::fmt;
use std::iter;

use serde::de::value::{Error as ValueError, MapDeserializer};
use serde::de::{self, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Number, Value};

/// Any JSON value.
#[derive(Debug)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Object<'a>),
}

/// The entries of an object, in their order; of a repeated key the last counts.
#[derive(Debug, Default)]
pub(crate) struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Json<'a> {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self {
            Json::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_number(&self) -> Option<&Number> {
        match self {
            Json::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Json::Object(object) => Some(object),
            _ => None,
        }
    }

    /// What it is, in the words of an error.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::Text(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        }
    }
}

impl<'a> Object<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<&Json<'a>> {
        let entry = self.0.iter().rev().find(|(known, _)| known == key);
        entry.map(|(_, value)| value)
    }

    /// Sets a key that is not there, or whose value is of no interest.
    pub(crate) fn set(&mut self, key: &'a str, value: Json<'a>) {
        self.0.push((Cow::Borrowed(key), value));
    }

    /// The object's `type`.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.get("type")?.as_str()
    }

    /// The values of these keys; the others' are copied.
    pub(crate) fn sort<const N: usize>(
        &self,
        keys: &[&str; N],
        others: &mut Map<String, Value>,
    ) -> [Option<&Json<'a>>; N] {
        let mut values = [None; N];
        self.sort_into(keys, &mut values, others);
        values
    }

    fn sort_into<'s>(
        &'s self,
        keys: &[&str],
        values: &mut [Option<&'s Json<'a>>],
        others: &mut Map<String, Value>,
    ) {
        // Most objects come in the order of their keys.
        let mut next = 0;
        for (key, value) in &self.0 {
            let is_it = |at: &usize| keys[*at] == *key;
            match (next..keys.len()).chain(0..next).find(is_it) {
                Some(at) => {
                    values[at] = Some(value);
                    next = at + 1;
                }
                None => {
                    others.insert(key.clone().into_owned(), value.into());
                }
            }
        }
    }

    /// Copies all entries.
    pub(crate) fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        for (key, value) in &self.0 {
            map.insert(key.clone().into_owned(), value.into());
        }
        map
    }
}

impl From<&Json<'_>> for Value {
    fn from(json: &Json<'_>) -> Value {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => Value::Number(number.clone()),
            Json::Text(text) => Value::String(text.clone().into_owned()),
            Json::Array(array) => Value::Array(array.iter().map(Value::from).collect()),
            Json::Object(object) => Value::Object(object.to_map()),
        }
    }
}

impl<'a> From<&'a Value> for Json<'a> {
    fn from(value: &'a Value) -> Json<'a> {
        match value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(number) => Json::Number(number.clone()),
            Value::String(text) => Json::Text(Cow::Borrowed(text)),
            Value::Array(array) => Json::Array(array.iter().map(Json::from).collect()),
            Value::Object(object) => Json::Object(object.into()),
        }
    }
}

impl<'a> From<&'a Map<String, Value>> for Object<'a> {
    fn from(map: &'a Map<String, Value>) -> Object<'a> {
        let entry = |(key, value): (&'a String, &'a Value)| (key.into(), value.into());
        Object(map.iter().map(entry).collect())
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(JsonVisitor)
    }
}

/// Reads JSON text.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    serde_json::from_str(utf_8(bytes)?)
}

/// Reads what a server sent. Nested deeper than [`DEEPEST`] levels it is refused: what is made of it
/// becomes a part of requests and journals, and must be readable there.
pub(crate) fn parse_response<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    parse_response_text(utf_8(bytes)?)
}

pub(super) fn parse_response_text<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    if is_deeper(text.as_bytes(), DEEPEST) {
        let why = format!("it is nested deeper than {DEEPEST} levels");
        return Err(serde_json::Error::custom(why));
    }
    serde_json::from_str(text)
}

/// One check of the whole is faster than one of each string, as serde_json does it for bytes.
fn utf_8(bytes: &[u8]) -> serde_json::Result<&str> {
    std::str::from_utf8(bytes).map_err(serde_json::Error::custom)
}

/// JSON is read to 127 levels.
const DEEPEST: usize = 100;

/// Whether JSON text has more than `levels` levels of arrays and objects.
fn is_deeper(text: &[u8], levels: usize) -> bool {
    // Few texts have so many brackets at all. In bytes, many are counted at once.
    let count = |part: &[u8]| -> u8 {
        let opens = part.iter().map(|byte| matches!(byte, b'[' | b'{'));
        opens.map(u8::from).sum()
    };
    let opening = || text.chunks(255).map(|part| usize::from(count(part)));
    if text.len() <= 2 * levels || opening().sum::<usize>() <= levels {
        return false;
    }
    let (mut level, mut is_string) = (0_usize, false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_string = !is_string,
            // What follows is no end of the string.
            b'\\' if is_string => drop(bytes.next()),
            _ if is_string => {}
            b'[' | b'{' => level += 1,
            b']' | b'}' => level = level.saturating_sub(1),
            _ => {}
        }
        if level > levels {
            return true;
        }
    }
    false
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_none<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Json<'de>, D::Error> {
        Json::deserialize(from)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Json<'de>, E> {
        let number = Number::from_i128(value).map(Json::Number);
        number.ok_or_else(|| E::custom(OUT_OF_RANGE))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Json<'de>, E> {
        let number = Number::from_u128(value).map(Json::Number);
        number.ok_or_else(|| E::custom(OUT_OF_RANGE))
    }

    /// What is no number in JSON is null, as in a [`Value`].
    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json<'de>, A::Error> {
        let mut array = Vec::new();
        while let Some(value) = seq.next_element()? {
            array.push(value);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            if entries.is_empty() {
                entries.reserve(8);
            }
            entries.push((key, map.next_value()?));
        }
        match entries.as_slice() {
            [(key, Json::Text(text))] if key == NUMBER => {
                number_or_object(text).map_err(A::Error::custom)
            }
            _ => Ok(Json::Object(Object(entries))),
        }
    }
}

const OUT_OF_RANGE: &str = "the number is out of range";

/// The one key of the map as which serde_json hands out a number that is no integer, where its
/// feature `arbitrary_precision` is on: any crate of a program can turn it on for all.
const NUMBER: &str = "$serde_json::private::Number";

/// Only serde_json knows which of both that map is.
#[cold]
fn number_or_object(text: &str) -> Result<Json<'static>, ValueError> {
    let map = MapDeserializer::new(iter::once((NUMBER, text)));
    Ok(match Value::deserialize(map)? {
        Value::Number(number) => Json::Number(number),
        _ => Json::Object(Object(vec![(
            Cow::Borrowed(NUMBER),
            Json::Text(Cow::Owned(text.to_owned())),
        )])),
    })
}

/// Any JSON value that is about to be written.
#[derive(Debug)]
pub(crate) enum Written<'a> {
    Bool(bool),
    Unsigned(u64),
    Float(f64),
    Text(&'a str),
    Array(Vec<Written<'a>>),
    Object(Vec<(&'a str, Written<'a>)>),
    Value(&'a Value),
    Map(&'a Map<String, Value>),
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Written::Bool(value) => to.serialize_bool(*value),
            Written::Unsigned(value) => to.serialize_u64(*value),
            Written::Float(value) => to.serialize_f64(*value),
            Written::Text(text) => to.serialize_str(text),
            Written::Array(array) => to.collect_seq(array),
            Written::Object(entries) => {
                to.collect_map(entries.iter().map(|(key, value)| (key, value)))
            }
            Written::Value(value) => value.serialize(to),
            Written::Map(map) => map.serialize(to),
        }
    }
}

/// A string, borrowed where the input allows it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::value::{I128Deserializer, U128Deserializer};

    #[test]
    fn levels_are_counted_outside_of_strings() {
        for (text, deepest) in [
            ("[]", 1),
            (r#"{"a":[{}],"b":[[[]]]}"#, 4),
            (r#"["[[[[", "\"[[\\", {}]"#, 2),
            ("[[] [] [] []", 2),
            ("]]]][", 1),
        ] {
            assert!(is_deeper(text.as_bytes(), deepest - 1), "{text}");
            assert!(!is_deeper(text.as_bytes(), deepest), "{text}");
        }
    }

    #[test]
    fn an_empty_object_takes_no_memory() {
        let json: Json<'_> = parse(b"[{}, {}]").unwrap();
        let Json::Array(array) = json else {
            panic!("{json:?}");
        };
        for object in array {
            let entries = &object.as_object().unwrap().0;
            assert_eq!(entries.capacity(), 0);
        }
    }

    /// serde_json hands these out of a [`Value`], where its feature `arbitrary_precision` is on.
    #[test]
    fn integers_of_128_bits_are_read_as_a_value_reads_them() {
        fn same<'de, D: Deserializer<'de> + Copy>(from: D) {
            let ours = Json::deserialize(from).ok().map(|json| Value::from(&json));
            assert_eq!(ours, Value::deserialize(from).ok());
        }
        for integer in [0, -1, i128::from(i64::MIN), i128::from(u64::MAX), i128::MAX] {
            same(I128Deserializer::<ValueError>::new(integer));
        }
        for integer in [0, u128::from(u64::MAX), u128::MAX] {
            same(U128Deserializer::<ValueError>::new(integer));
        }
    }
}
