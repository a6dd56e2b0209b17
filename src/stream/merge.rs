//! Merges what later events say about a message into it.

use std::io;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::types::{Message, MessageDelta, Usage};

/// Takes over what is said about the message; returns by how much its unknown fields have grown.
pub(super) fn apply_message_delta(message: &mut Message, event: &MessageDelta) -> usize {
    let delta = &event.delta;
    let extra = &mut message.extra;
    let said = &delta.extra;
    let (slot, value) = (&mut message.stop_reason, &delta.stop_reason);
    overwrite_even_by_null(slot, extra, "stop_reason", value, said);
    let (slot, value) = (&mut message.stop_sequence, &delta.stop_sequence);
    overwrite_even_by_null(slot, extra, "stop_sequence", value, said);
    let (slot, value) = (&mut message.stop_details, &delta.stop_details);
    overwrite_even_by_null(slot, extra, "stop_details", value, said);
    if delta.container.is_some() {
        let (slot, value) = (&mut message.container, &delta.container);
        overwrite_even_by_null(slot, extra, "container", value, said);
    }
    let mut growth = 0;
    for (name, value) in event.extra.iter().chain(said) {
        if !value.is_null() && !RESERVED_FIELDS.contains(&name.as_str()) {
            growth += insert_extra(extra, name, value);
        }
    }
    if let Some(usage) = &event.usage {
        growth += overwrite_usage(&mut message.usage, usage);
        remove_extra(extra, "usage", message.usage == Usage::default());
    }
    growth
}

/// Keeps an unknown field; returns by how much that takes more than what was there.
#[inline(never)]
fn insert_extra(extra: &mut Map<String, Value>, name: &str, value: &Value) -> usize {
    let size = |value: &Value| size_of::<(String, Value)>() + name.len() + json_len(value);
    let before = extra.insert(name.to_owned(), value.clone());
    size(value).saturating_sub(before.as_ref().map_or(0, size))
}

/// Takes over a field that was said, if only to be null.
#[inline(never)]
fn overwrite_even_by_null<T: Clone>(
    slot: &mut Option<T>,
    extra: &mut Map<String, Value>,
    name: &str,
    value: &Option<T>,
    said: &Map<String, Value>,
) {
    if value.is_some() {
        slot.clone_from(value);
        extra.remove(name);
    } else if let Some(odd) = said.get(name) {
        *slot = None;
        extra.insert(name.to_owned(), odd.clone());
    }
}

/// Takes over all fields, known or not, that are there and not null; returns by how much the unknown
/// ones have grown.
pub(crate) fn overwrite_usage(usage: &mut Usage, update: &Usage) -> usize {
    // Each by its name, so that none is forgotten.
    let Usage {
        input_tokens,
        output_tokens,
        cache_creation_input_tokens,
        cache_read_input_tokens,
        cache_creation,
        output_tokens_details,
        server_tool_use,
        service_tier,
        inference_geo,
        speed,
        extra: said,
    } = update;
    let mut growth = 0;
    for (name, value) in said.iter().filter(|(_, value)| !value.is_null()) {
        growth += insert_extra(&mut usage.extra, name, value);
    }
    let extra = &mut usage.extra;
    let not_null = |name| said.get(name).filter(|value| !value.is_null());
    macro_rules! overwrite {
        (count $field:ident) => {
            if *$field > 0 {
                usage.$field = *$field;
                extra.remove(stringify!($field));
            } else if not_null(stringify!($field)).is_some() {
                usage.$field = 0;
            }
        };
        ($field:ident) => {
            overwrite_unless_null(&mut usage.$field, extra, stringify!($field), $field, said)
        };
    }
    overwrite!(count input_tokens);
    overwrite!(count output_tokens);
    overwrite!(cache_creation_input_tokens);
    overwrite!(cache_read_input_tokens);
    overwrite!(cache_creation);
    overwrite!(output_tokens_details);
    overwrite!(server_tool_use);
    overwrite!(service_tier);
    overwrite!(inference_geo);
    overwrite!(speed);
    growth
}

#[inline(never)]
fn overwrite_unless_null<T: Clone>(
    slot: &mut Option<T>,
    extra: &mut Map<String, Value>,
    name: &str,
    value: &Option<T>,
    said: &Map<String, Value>,
) {
    if value.is_some() {
        slot.clone_from(value);
        extra.remove(name);
    } else if said.get(name).is_some_and(|odd| !odd.is_null()) {
        *slot = None;
    }
}

/// Drops what was kept of a field as it was before, unless the field is still unset.
#[inline(never)]
pub(super) fn remove_extra(extra: &mut Map<String, Value>, name: &str, is_unset: bool) {
    if !is_unset && !extra.is_empty() {
        extra.remove(name);
    }
}

/// The length of a value as JSON, which stands for its size in memory.
pub(super) fn json_len(value: &impl Serialize) -> usize {
    struct Length(usize);
    impl io::Write for Length {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut length = Length(0);
    // Neither side can fail; if it did, what was written until then would count.
    let _ = serde_json::to_writer(&mut length, value);
    length.0
}

/// What an event may not add to a message, because it is set in other ways.
const RESERVED_FIELDS: [&str; 11] = [
    "id",
    "type",
    "role",
    "model",
    "content",
    "stop_reason",
    "stop_sequence",
    "stop_details",
    "container",
    "usage",
    "delta",
];
