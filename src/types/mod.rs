//! What travels on the wire: plain data, serde and constructors, no I/O.

// Reading and writing JSON.
pub(crate) mod digest;
mod json;

mod wire;

// Plain values.
mod dimension;
mod error_kind;
mod rate_limits;
mod request_id;
mod wait;

mod attempt;

mod meta;

// What a message is made of.
mod content;
mod model;
mod tool;
mod usage;

mod tokens;

// What goes in.
mod message_param;

mod request;

mod size_estimate;

// What comes out.
mod message;

mod api_error;

mod batch;
mod event;

mod raw_event;

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
pub use self::dimension::Dimension;
pub use self::error_kind::ErrorKind;
pub use self::event::{
    CitationsDelta, ContentBlockDelta, ContentBlockStart, ContentBlockStop, ContentDelta,
    InputJsonDelta, MessageDelta, MessageStart, MessageStop, Ping, SignatureDelta, StopDelta,
    StreamEvent, TextDelta, ThinkingDelta,
};
pub use self::message::{Message, StopDetails, StopReason};
pub use self::message_param::{MessageParam, Role};
pub use self::model::{Lifecycle, Model, ModelInfo};
pub use self::rate_limits::{RateLimit, RateLimits};
pub use self::request::{MessageRequest, Metadata, OutputConfig, Thinking};
pub use self::request_id::RequestId;
pub use self::tokens::Tokens;
pub use self::tool::{CustomTool, Tool, ToolChoice};
pub use self::usage::{CacheCreation, OutputTokensDetails, ServerToolUsage, Usage};
pub use self::wait::{WaitCause, Waits};

pub(crate) use self::json::{parse, parse_response};
pub(crate) use self::meta::ResponseMeta;
pub(crate) use self::raw_event::{DeltaKind, ErrorEvent, EventError, RawEvent};
pub(crate) use self::request::{CountBody, CreateBody};
