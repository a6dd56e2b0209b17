//! The lines of a run's journal.

use serde::{Deserialize, Serialize};

use super::lookup::NewestBatch;

/// A line of the journal. It holds ids, counts and digests, but no request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RunRecord {
    /// A batch is about to be created.
    Creating(PlannedBatch),
    /// The batch was created.
    Created {
        batch: usize,
        id: String,
        /// Whether the batch was found in the list, and may be somebody else's.
        #[serde(default)]
        found: bool,
    },
    /// The batch that was found in the list is somebody else's.
    NotOurs { batch: usize, id: String },
    /// The server refused the batch, which may be planned anew.
    Refused { batch: usize },
}

/// A batch before its creation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PlannedBatch {
    /// The position of the batch in the run, from 0.
    pub(super) batch: usize,
    /// How often its requests were submitted before: 0 for the requests of the input.
    pub(super) round: u32,
    /// The number of its requests.
    pub(super) requests: u64,
    /// The digest of its body.
    pub(super) digest: String,
    /// The newest batch before it.
    pub(super) newest: Option<NewestBatch>,
}
