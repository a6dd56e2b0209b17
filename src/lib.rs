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

// Each module imports from those above it only.

// Words: plain data and the errors made of it.
mod types;

mod sync;

mod clock;
mod error;

// Machines: values and time in, values out.
mod accumulate;
mod diagnose;
mod digest;
mod rate_limits;
mod retry;
mod sse;

// Shared state.
mod budget;

// The wire.
mod transport;

mod drain;

// The call.
mod answer;
mod totals;

mod prices;

mod charge;

mod call;

// In users' hands.
mod client;
mod stream;

mod messages;
mod raw;

mod ask;
mod pages;

mod models;

mod journal;

mod batches;
mod bulk;

#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;

#[cfg(doc)]
pub mod guide;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

pub use crate::batches::{BatchProgress, BatchResults, BatchRun, Batches};
pub use crate::budget::{
    Admission, Budget, ClassSnapshot, Cost, DimensionSnapshot, InputEstimate, Limits, ModelClass,
    Plan, Reservation, Wait,
};
pub use crate::bulk::{Bulk, BulkRun, Progress};
pub use crate::client::{Client, ClientBuilder, Options};
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::messages::Messages;
pub use crate::models::Models;
pub use crate::pages::Pages;
pub use crate::prices::{Price, Prices};
pub use crate::raw::{Raw, RawAnswer};
pub use crate::retry::RetryPolicy;
pub use crate::stream::{MessageStream, TextDeltas};
pub use crate::totals::{Tally, Totals};
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
    BatchEntry, BatchFailure, BatchResult, BatchSuccess, ErrorAnswer, Lifecycle, MessageBatch,
    ModelInfo, NotRun, ProcessingStatus, RequestCounts,
};
