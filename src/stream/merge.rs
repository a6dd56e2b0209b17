//! Merges the fields of later events into a message.
//!
//! A field of ours that came with a value of another type, or as `null`, is kept in `extra` under its
//! name, so that the message is written as it was received. A later valid value removes it there.

use std::io;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::types::{Message, MessageDelta, Usage};

/// Merges a `message_delta` into the message, and returns by how many bytes the unknown fields of the
/// message have grown.
pub(super) fn apply_message_delta(message: &mut Message, event: &MessageDelta) -> usize {
    let delta = &event.delta;
    let extra = &mut message.extra;
    let update_extra = &delta.extra;
    let (slot, value) = (&mut message.stop_reason, &delta.stop_reason);
    overwrite_even_by_null(slot, extra, "stop_reason", value, update_extra);
    let (slot, value) = (&mut message.stop_sequence, &delta.stop_sequence);
    overwrite_even_by_null(slot, extra, "stop_sequence", value, update_extra);
    let (slot, value) = (&mut message.stop_details, &delta.stop_details);
    overwrite_even_by_null(slot, extra, "stop_details", value, update_extra);
    if delta.container.is_some() {
        let (slot, value) = (&mut message.container, &delta.container);
        overwrite_even_by_null(slot, extra, "container", value, update_extra);
    }
    let mut growth = 0;
    for (name, value) in event.extra.iter().chain(update_extra) {
        if !value.is_null() && !RESERVED_FIELDS.contains(&name.as_str()) {
            growth += insert_extra(extra, name, value);
        }
    }
    if let Some(usage) = &event.usage {
        growth += overwrite_usage(&mut message.usage, usage);
        if message.usage != Usage::default() {
            remove_extra(extra, "usage");
        }
    }
    growth
}

/// Sets an unknown field, and returns by how many bytes it is larger than the value before.
#[inline(never)]
fn insert_extra(extra: &mut Map<String, Value>, name: &str, value: &Value) -> usize {
    let size = |value: &Value| size_of::<(String, Value)>() + name.len() + json_len(value);
    let before = extra.insert(name.to_owned(), value.clone());
    size(value).saturating_sub(before.as_ref().map_or(0, size))
}

/// Overwrites a field that the event has, even with `null`.
#[inline(never)]
fn overwrite_even_by_null<T: Clone>(
    slot: &mut Option<T>,
    extra: &mut Map<String, Value>,
    name: &str,
    value: &Option<T>,
    update_extra: &Map<String, Value>,
) {
    if value.is_some() {
        slot.clone_from(value);
        extra.remove(name);
    } else if let Some(odd) = update_extra.get(name) {
        *slot = None;
        extra.insert(name.to_owned(), odd.clone());
    }
}

/// Overwrites the fields of a usage, known or not, that the update has and that are not null. Returns by
/// how many bytes the unknown fields have grown.
pub(crate) fn overwrite_usage(usage: &mut Usage, update: &Usage) -> usize {
    // The pattern names every field, so that a new field cannot be forgotten here.
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
        extra: update_extra,
    } = update;
    let mut growth = 0;
    for (name, value) in update_extra.iter().filter(|(_, value)| !value.is_null()) {
        growth += insert_extra(&mut usage.extra, name, value);
    }
    let extra = &mut usage.extra;
    let not_null = |name| update_extra.get(name).filter(|value| !value.is_null());
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
            overwrite_unless_null(
                &mut usage.$field,
                extra,
                stringify!($field),
                $field,
                update_extra,
            )
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

/// Overwrites a field that the update has, unless it is `null`.
#[inline(never)]
fn overwrite_unless_null<T: Clone>(
    slot: &mut Option<T>,
    extra: &mut Map<String, Value>,
    name: &str,
    value: &Option<T>,
    update_extra: &Map<String, Value>,
) {
    if value.is_some() {
        slot.clone_from(value);
        extra.remove(name);
    } else if update_extra.get(name).is_some_and(|odd| !odd.is_null()) {
        *slot = None;
    }
}

/// Removes the odd value of a field that has a valid value now.
#[inline(never)]
pub(super) fn remove_extra(extra: &mut Map<String, Value>, name: &str) {
    if !extra.is_empty() {
        extra.remove(name);
    }
}

/// Returns the length of a value as JSON, which approximates its size in memory.
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
    // Neither side can fail. If one did, the bytes written before would count.
    let _ = serde_json::to_writer(&mut length, value);
    length.0
}

/// The fields of a message that an event cannot add as unknown ones.
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
