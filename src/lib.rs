// The target of `[limits]`, before that in the README: pages of the documentation have no files
// beside them.
#![cfg_attr(doc, doc = include_str!("../examples/picture/limits.md"))]
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(clippy::unwrap_used)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that panics has failed")
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The map: each module imports only from those above it, and data flows from the caller down:
// bulk -> api -> client -> call -> budget (may it be sent now?) and http (one exchange) -> types.

// What travels on the wire, and plain values: no I/O, no lock, no clock.
mod types;

// Now, sleep, cancellation, locks.
mod clock;

// The error type, and every error text.
mod error;

// A streamed response, from bytes to a message.
mod stream;

// An append-only file of records that survives a killed process.
mod journal;

// One HTTP exchange; the only module that names ureq.
mod http;

// What tokens cost in dollars.
mod prices;

// What may be sent when.
mod budget;

// One API call: send, classify, retry, account for usage.
mod call;

// The client, its builder and its settings.
mod client;

// A handle for each resource of the API.
mod api;

// Many requests on several threads.
mod bulk;

// The test server and the manual clock.
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;

// Pages of documentation.
#[cfg(doc)]
pub mod guide;

// Entry points of the fuzz targets.
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

pub use crate::api::batches::{BatchProgress, BatchResults, BatchRun, Batches};
pub use crate::api::messages::{MessageStream, Messages, TextDeltas};
pub use crate::api::models::Models;
pub use crate::api::pages::Pages;
pub use crate::api::raw::{Raw, RawResponse};
pub use crate::budget::{
    Admission, Budget, ClassSnapshot, Cost, DimensionSnapshot, InputEstimate, Limits, ModelClass,
    Plan, Reservation, Wait,
};
pub use crate::bulk::{Bulk, BulkRun, Progress};
pub use crate::call::retry::RetryPolicy;
pub use crate::call::totals::{CallTotals, Totals};
pub use crate::client::{Client, ClientBuilder, Options};
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::prices::{Price, Prices};
pub use crate::types::{
    ApiError, ApiErrorType, Attempt, CacheControl, CacheCreation, Citation, CitationsDelta,
    ContainerUploadBlock, Content, ContentBlock, ContentBlockDelta, ContentBlockStart,
    ContentBlockStop, ContentDelta, CustomTool, Delivery, Dimension, DocumentBlock, ImageBlock,
    InputJsonDelta, Message, MessageDelta, MessageParam, MessageRequest, MessageStart, MessageStop,
    Metadata, Model, OutputConfig, OutputTokensDetails, Ping, RateLimit, RateLimits,
    RedactedThinkingBlock, RequestId, Role, SearchResultBlock, ServerToolResultBlock,
    ServerToolUsage, ServerToolUseBlock, SignatureDelta, Source, StopDelta, StopDetails,
    StopReason, StreamEvent, TextBlock, TextDelta, Thinking, ThinkingBlock, ThinkingDelta, Tokens,
    Tool, ToolChoice, ToolResultBlock, ToolUseBlock, Usage, WaitCause, Waits,
};
pub use crate::types::{
    BatchEntry, BatchFailure, BatchResult, BatchSuccess, ErrorResponse, Lifecycle, MessageBatch,
    ModelInfo, NotRun, ProcessingStatus, RequestCounts,
};
