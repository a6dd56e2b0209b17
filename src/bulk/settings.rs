//! The settings of a run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::progress::OnProgress;
use crate::prices::Prices;

/// The values that the setters of [`Bulk`](crate::Bulk) set.
#[derive(Clone)]
pub(super) struct BulkSettings {
    pub(super) concurrency: usize,
    pub(super) ramp_up: Duration,
    pub(super) journal: Option<PathBuf>,
    pub(super) replay: bool,
    pub(super) warm_first: bool,
    pub(super) prices: Prices,
    pub(super) spend_limit: Option<f64>,
    pub(super) on_progress: Option<Arc<OnProgress>>,
}
