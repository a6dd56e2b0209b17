//! What the API offers, a handle for each resource.

pub(crate) mod endpoint;

pub(crate) mod pages;

pub(crate) mod batches;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod raw;
