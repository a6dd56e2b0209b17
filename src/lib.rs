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

mod types;

mod clock;

mod error;

mod stream;

mod journal;

mod http;

mod prices;

mod budget;

mod call;

mod client;

mod api;

mod bulk;

#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;

#[cfg(doc)]
pub mod guide;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

pub use crate::api::batches::{BatchProgress, BatchResults, BatchRun, Batches};
pub use crate::api::messages::Messages;
pub use crate::api::messages::stream::{MessageStream, TextDeltas};
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
