//! JSON values between text and the wire types.
//!
//! All wire types are read from [`ParsedJson`] and written as [`JsonView`] rather than through
//! derived serde code of their own, so that a program contains one parser and one writer for all of
//! them. Strings without escapes are borrowed from the input.

use std::borrow::Cow;
use std::fmt;
use std::iter;

use serde::de::value::{Error as ValueError, MapDeserializer};
use serde::de::{self, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Number, Value};

/// A JSON value as parsed; strings without escapes are borrowed from the input.
#[derive(Debug)]
pub(crate) enum ParsedJson<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    Array(Vec<ParsedJson<'a>>),
    Object(ParsedObject<'a>),
}

/// The entries of a JSON object, in the order of the input. The last of repeated keys counts.
#[derive(Debug, Default)]
pub(crate) struct ParsedObject<'a> {
    entries: Vec<(Cow<'a, str>, ParsedJson<'a>)>,
}

impl<'a> ParsedJson<'a> {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, ParsedJson::Null)
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self {
            ParsedJson::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            ParsedJson::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_number(&self) -> Option<&Number> {
        match self {
            ParsedJson::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn as_object(&self) -> Option<&ParsedObject<'a>> {
        match self {
            ParsedJson::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Names the value's type for error texts.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            ParsedJson::Null => "null",
            ParsedJson::Bool(_) => "a boolean",
            ParsedJson::Number(_) => "a number",
            ParsedJson::Text(_) => "a string",
            ParsedJson::Array(_) => "an array",
            ParsedJson::Object(_) => "an object",
        }
    }
}

impl<'a> ParsedObject<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<&ParsedJson<'a>> {
        let entry = self.entries.iter().rev().find(|(known, _)| known == key);
        entry.map(|(_, value)| value)
    }

    /// Sets a key; replaces its value if the object has the key already.
    pub(crate) fn set(&mut self, key: &'a str, value: ParsedJson<'a>) {
        self.entries.push((Cow::Borrowed(key), value));
    }

    /// Returns the object's `type`, if it is a string.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.get("type")?.as_str()
    }

    /// Returns the values of `keys`; copies all other entries to `rest`.
    pub(crate) fn split<const N: usize>(
        &self,
        keys: &[&str; N],
        rest: &mut Map<String, Value>,
    ) -> [Option<&ParsedJson<'a>>; N] {
        let mut values = [None; N];
        self.split_into(keys, &mut values, rest);
        values
    }

    fn split_into<'s>(
        &'s self,
        keys: &[&str],
        values: &mut [Option<&'s ParsedJson<'a>>],
        rest: &mut Map<String, Value>,
    ) {
        // Most objects list their fields in the order of `keys`: begin behind the last match.
        let mut next = 0;
        for (key, value) in &self.entries {
            let matches = |at: &usize| keys[*at] == *key;
            match (next..keys.len()).chain(0..next).find(matches) {
                Some(at) => {
                    values[at] = Some(value);
                    next = at + 1;
                }
                None => {
                    rest.insert(key.clone().into_owned(), value.into());
                }
            }
        }
    }

    /// Copies all entries.
    pub(crate) fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        for (key, value) in &self.entries {
            map.insert(key.clone().into_owned(), value.into());
        }
        map
    }
}

impl From<&ParsedJson<'_>> for Value {
    fn from(json: &ParsedJson<'_>) -> Value {
        match json {
            ParsedJson::Null => Value::Null,
            ParsedJson::Bool(value) => Value::Bool(*value),
            ParsedJson::Number(number) => Value::Number(number.clone()),
            ParsedJson::Text(text) => Value::String(text.clone().into_owned()),
            ParsedJson::Array(array) => Value::Array(array.iter().map(Value::from).collect()),
            ParsedJson::Object(object) => Value::Object(object.to_map()),
        }
    }
}

impl<'a> From<&'a Value> for ParsedJson<'a> {
    fn from(value: &'a Value) -> ParsedJson<'a> {
        match value {
            Value::Null => ParsedJson::Null,
            Value::Bool(value) => ParsedJson::Bool(*value),
            Value::Number(number) => ParsedJson::Number(number.clone()),
            Value::String(text) => ParsedJson::Text(Cow::Borrowed(text)),
            Value::Array(array) => ParsedJson::Array(array.iter().map(ParsedJson::from).collect()),
            Value::Object(object) => ParsedJson::Object(object.into()),
        }
    }
}

impl<'a> From<&'a Map<String, Value>> for ParsedObject<'a> {
    fn from(map: &'a Map<String, Value>) -> ParsedObject<'a> {
        let entry = |(key, value): (&'a String, &'a Value)| (key.into(), value.into());
        ParsedObject {
            entries: map.iter().map(entry).collect(),
        }
    }
}

impl<'de> Deserialize<'de> for ParsedJson<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(JsonVisitor)
    }
}

/// Reads JSON text.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    serde_json::from_str(to_utf8(bytes)?)
}

/// Reads JSON text from a server. Text with more than [`MAX_LEVELS`] nested levels is an error: a
/// response becomes part of requests and journals, where it adds levels and must stay readable.
pub(crate) fn parse_response<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    parse_response_text(to_utf8(bytes)?)
}

pub(super) fn parse_response_text<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    if is_nested_deeper(text.as_bytes(), MAX_LEVELS) {
        let why = format!("the value is nested deeper than {MAX_LEVELS} levels");
        return Err(serde_json::Error::custom(why));
    }
    serde_json::from_str(text)
}

/// Checks the whole input at once, which is faster than `serde_json::from_slice`: that checks each
/// string.
fn to_utf8(bytes: &[u8]) -> serde_json::Result<&str> {
    std::str::from_utf8(bytes).map_err(serde_json::Error::custom)
}

/// The most nested levels of a server's JSON. serde_json reads up to 127; the rest is left for what
/// a request or a journal record wraps around a response.
const MAX_LEVELS: usize = 100;

/// Whether JSON text has more than `levels` levels of arrays and objects.
fn is_nested_deeper(text: &[u8], levels: usize) -> bool {
    // Few texts contain so many brackets at all. Counting in bytes lets the compiler vectorize; a
    // chunk of 255 bytes cannot overflow a `u8`.
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
            // The escaped byte does not end the string.
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
    type Value = ParsedJson<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<ParsedJson<'de>, E> {
        Ok(ParsedJson::Null)
    }

    fn visit_none<E>(self) -> Result<ParsedJson<'de>, E> {
        Ok(ParsedJson::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<ParsedJson<'de>, D::Error> {
        ParsedJson::deserialize(from)
    }

    fn visit_bool<E>(self, value: bool) -> Result<ParsedJson<'de>, E> {
        Ok(ParsedJson::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<ParsedJson<'de>, E> {
        Ok(ParsedJson::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<ParsedJson<'de>, E> {
        Ok(ParsedJson::Number(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<ParsedJson<'de>, E> {
        let number = Number::from_i128(value).map(ParsedJson::Number);
        number.ok_or_else(|| E::custom(OUT_OF_RANGE))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<ParsedJson<'de>, E> {
        let number = Number::from_u128(value).map(ParsedJson::Number);
        number.ok_or_else(|| E::custom(OUT_OF_RANGE))
    }

    /// Reads NaN and the infinities, which JSON cannot express, as null, like [`Value`] does.
    fn visit_f64<E>(self, value: f64) -> Result<ParsedJson<'de>, E> {
        Ok(Number::from_f64(value).map_or(ParsedJson::Null, ParsedJson::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<ParsedJson<'de>, E> {
        Ok(ParsedJson::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<ParsedJson<'de>, E> {
        Ok(ParsedJson::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<ParsedJson<'de>, E> {
        Ok(ParsedJson::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ParsedJson<'de>, A::Error> {
        let mut array = Vec::new();
        while let Some(value) = seq.next_element()? {
            array.push(value);
        }
        Ok(ParsedJson::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ParsedJson<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(BorrowedStr(key)) = map.next_key()? {
            if entries.is_empty() {
                entries.reserve(8);
            }
            entries.push((key, map.next_value()?));
        }
        match entries.as_slice() {
            [(key, ParsedJson::Text(text))] if key == ARBITRARY_NUMBER_KEY => {
                number_or_object(text).map_err(A::Error::custom)
            }
            _ => Ok(ParsedJson::Object(ParsedObject { entries })),
        }
    }
}

const OUT_OF_RANGE: &str = "the number is out of range";

/// With serde_json's feature `arbitrary_precision`, a number that is no integer arrives as a map
/// with this one key. Any crate of a program can turn the feature on for all crates.
const ARBITRARY_NUMBER_KEY: &str = "$serde_json::private::Number";

/// Reads a map whose only key is [`ARBITRARY_NUMBER_KEY`] as serde_json reads it: as a number if
/// the feature is on, else as an ordinary object.
#[cold]
fn number_or_object(text: &str) -> Result<ParsedJson<'static>, ValueError> {
    let map = MapDeserializer::new(iter::once((ARBITRARY_NUMBER_KEY, text)));
    Ok(match Value::deserialize(map)? {
        Value::Number(number) => ParsedJson::Number(number),
        _ => {
            let value = ParsedJson::Text(Cow::Owned(text.to_owned()));
            ParsedJson::Object(ParsedObject {
                entries: vec![(Cow::Borrowed(ARBITRARY_NUMBER_KEY), value)],
            })
        }
    })
}

/// A JSON value to serialize, borrowed from a wire type.
#[derive(Debug)]
pub(crate) enum JsonView<'a> {
    Bool(bool),
    Unsigned(u64),
    Float(f64),
    Text(&'a str),
    Array(Vec<JsonView<'a>>),
    Object(Vec<(&'a str, JsonView<'a>)>),
    Value(&'a Value),
    Map(&'a Map<String, Value>),
}

impl Serialize for JsonView<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            JsonView::Bool(value) => to.serialize_bool(*value),
            JsonView::Unsigned(value) => to.serialize_u64(*value),
            JsonView::Float(value) => to.serialize_f64(*value),
            JsonView::Text(text) => to.serialize_str(text),
            JsonView::Array(array) => to.collect_seq(array),
            JsonView::Object(entries) => {
                to.collect_map(entries.iter().map(|(key, value)| (key, value)))
            }
            JsonView::Value(value) => value.serialize(to),
            JsonView::Map(map) => map.serialize(to),
        }
    }
}

/// A string that is borrowed from the input unless it contains escapes.
pub(crate) struct BorrowedStr<'de>(pub(crate) Cow<'de, str>);

impl<'de> Deserialize<'de> for BorrowedStr<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct BorrowedStrVisitor;
        impl<'de> Visitor<'de> for BorrowedStrVisitor {
            type Value = BorrowedStr<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<BorrowedStr<'de>, E> {
                Ok(BorrowedStr(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<BorrowedStr<'de>, E> {
                Ok(BorrowedStr(Cow::Owned(text.to_owned())))
            }
            fn visit_string<E>(self, text: String) -> Result<BorrowedStr<'de>, E> {
                Ok(BorrowedStr(Cow::Owned(text)))
            }
        }
        from.deserialize_str(BorrowedStrVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::value::{I128Deserializer, U128Deserializer};

    #[test]
    fn nesting_is_counted_outside_of_strings() {
        for (text, deepest) in [
            ("[]", 1),
            (r#"{"a":[{}],"b":[[[]]]}"#, 4),
            (r#"["[[[[", "\"[[\\", {}]"#, 2),
            ("[[] [] [] []", 2),
            ("]]]][", 1),
        ] {
            assert!(is_nested_deeper(text.as_bytes(), deepest - 1), "{text}");
            assert!(!is_nested_deeper(text.as_bytes(), deepest), "{text}");
        }
    }

    #[test]
    fn empty_object_allocates_nothing() {
        let json: ParsedJson<'_> = parse(b"[{}, {}]").unwrap();
        let ParsedJson::Array(array) = json else {
            panic!("{json:?}");
        };
        for object in array {
            let entries = &object.as_object().unwrap().entries;
            assert_eq!(entries.capacity(), 0);
        }
    }

    /// With its feature `arbitrary_precision`, serde_json produces 128-bit integers from a
    /// [`Value`].
    #[test]
    fn integers_of_128_bits_are_read_as_by_value() {
        fn assert_reads_like_value<'de, D: Deserializer<'de> + Copy>(from: D) {
            let ours = ParsedJson::deserialize(from)
                .ok()
                .map(|json| Value::from(&json));
            assert_eq!(ours, Value::deserialize(from).ok());
        }
        for integer in [0, -1, i128::from(i64::MIN), i128::from(u64::MAX), i128::MAX] {
            assert_reads_like_value(I128Deserializer::<ValueError>::new(integer));
        }
        for integer in [0, u128::from(u64::MAX), u128::MAX] {
            assert_reads_like_value(U128Deserializer::<ValueError>::new(integer));
        }
    }
}
