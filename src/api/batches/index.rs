//! Which request of a run is in which batch.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

/// The requests of a run and the batches that hold them. A request is named by its position in the
/// input, a batch by its position in `ids`.
#[derive(Debug, Default)]
pub(super) struct BatchIndex {
    /// The ids of the batches, in the order of their creation.
    pub(super) ids: Vec<String>,
    /// For each batch its requests, in ascending order.
    pub(super) members: Vec<Vec<usize>>,
    /// For each request its custom id.
    pub(super) keys: Vec<Arc<str>>,
    /// The requests by custom id.
    pub(super) positions: HashMap<Arc<str>, usize>,
    /// For each request the batch that holds its result: the last one it was submitted in.
    pub(super) batch_of: Vec<usize>,
}

impl BatchIndex {
    /// Looks up a request of this batch by its custom id.
    pub(super) fn member(&self, batch: usize, custom_id: &str) -> Option<usize> {
        let position = self.positions.get(custom_id).copied()?;
        let is_member = self.members[batch].binary_search(&position).is_ok();
        is_member.then_some(position)
    }
}

/// The part of a result line that names the request.
#[derive(Deserialize)]
pub(super) struct ResultLine<'a> {
    #[serde(borrow)]
    pub(super) custom_id: Cow<'a, str>,
}
