//! A streamed response, from bytes to a message, without I/O, locks or clocks.
//!
//! [`sse::Decoder`] turns bytes into server-sent events. The caller parses each one into a typed event
//! and passes it to [`accumulate::Accumulator`], which folds the events into a message.

// Bytes to events.
mod line_end;

pub(crate) mod sse;

// Events to a message.
pub(crate) mod merge;

pub(crate) mod accumulate;
