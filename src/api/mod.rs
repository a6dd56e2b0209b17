//! A handle for each resource of the API.

// One request with a JSON response; what an id and a path may contain.
pub(crate) mod endpoint;

// Lists that come page by page.
pub(crate) mod pages;

// The resources. `raw` is any endpoint by its path.
pub(crate) mod batches;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod raw;
