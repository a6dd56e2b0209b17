//! A streamed response, from bytes to a message: pure.

pub(crate) mod accumulate;
pub(crate) mod sse;
