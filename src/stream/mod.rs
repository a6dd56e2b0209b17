//! A streamed response, from bytes to a message: pure.

mod line_end;

pub(crate) mod sse;

pub(crate) mod merge;

pub(crate) mod accumulate;
