//! What travels on the wire, and plain values: no I/O, no lock, no clock.
//!
//! A [`MessageRequest`] goes out: `body` writes it as the JSON that an endpoint accepts. What the
//! server sends comes in as a [`Message`], as stream events or as a [`MessageBatch`]; failures as
//! an [`ApiError`]. `wire` defines how all of these are read and written without loss, through the
//! JSON values in `json`. The remaining types describe a call: what it waited for, what each
//! attempt met, which limits the server reported.
//!
//! A file imports only from files listed above it.

// JSON: values, and the traits and macros of wire types.
pub(crate) mod digest;
mod json;
mod wire;

// A call: its attempts, waits, limits and kinds of failure.
mod dimension;
mod error_kind;
mod rate_limits;
mod request_id;
mod wait;

mod attempt;
mod meta;

// A conversation: models, content blocks, tools, turns.
mod content;
mod message_param;
mod model;
mod thinking;
mod tool;

// A request, its bodies and its size.
mod request;

mod body;
mod size_estimate;

// A response: the message and its usage, or an error.
mod api_error;
mod usage;

mod message;
mod tokens;

// A batch and its results.
mod batch;

// A streamed response: its events, and their fast decoder.
mod delta;
mod event;

mod decoded_event;

pub use self::api_error::{ApiError, ApiErrorType};
pub use self::attempt::{Attempt, Delivery};
pub use self::batch::{
    BatchEntry, BatchFailure, BatchResult, BatchSuccess, ErrorResponse, MessageBatch, NotRun,
    ProcessingStatus, RequestCounts,
};
pub use self::content::{
    CacheControl, Citation, ContainerUploadBlock, Content, ContentBlock, DocumentBlock, ImageBlock,
    RedactedThinkingBlock, SearchResultBlock, ServerToolResultBlock, ServerToolUseBlock, Source,
    TextBlock, ThinkingBlock, ToolResultBlock, ToolUseBlock,
};
pub use self::delta::{
    CitationsDelta, ContentDelta, InputJsonDelta, SignatureDelta, TextDelta, ThinkingDelta,
};
pub use self::dimension::Dimension;
pub use self::error_kind::ErrorKind;
pub use self::event::{
    ContentBlockDelta, ContentBlockStart, ContentBlockStop, MessageDelta, MessageStart,
    MessageStop, Ping, StopDelta, StreamEvent,
};
pub use self::message::{Message, StopDetails, StopReason};
pub use self::message_param::{MessageParam, Role};
pub use self::model::{Lifecycle, Model, ModelInfo};
pub use self::rate_limits::{RateLimit, RateLimits};
pub use self::request::{MessageRequest, Metadata, OutputConfig};
pub use self::request_id::RequestId;
pub use self::thinking::Thinking;
pub use self::tokens::Tokens;
pub use self::tool::{CustomTool, Tool, ToolChoice};
pub use self::usage::{CacheCreation, OutputTokensDetails, ServerToolUsage, Usage};
pub use self::wait::{WaitCause, Waits};

pub(crate) use self::body::{CountBody, CreateBody};
pub(crate) use self::decoded_event::{DecodedEvent, DeltaKind, ErrorEvent, EventError};
pub(crate) use self::json::{parse, parse_response};
pub(crate) use self::meta::ResponseMeta;
