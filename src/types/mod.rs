//! What travels on the wire: plain data, serde and constructors, no I/O.

mod api_error;
mod batch;
mod content;
pub(crate) mod digest;
mod event;
mod id;
mod json;
mod message;
mod meta;
mod model;
mod raw_event;
mod request;
mod size;
mod tokens;
mod tool;
mod wait;
mod wire;

pub use self::api_error::{ApiError, ApiErrorType};
pub use self::batch::{
    BatchEntry, BatchFailure, BatchResult, BatchSuccess, ErrorResponse, MessageBatch, NotRun,
    ProcessingStatus, RequestCounts,
};
pub use self::content::{
    CacheControl, Citation, ContainerUploadBlock, Content, ContentBlock, DocumentBlock, ImageBlock,
    RedactedThinkingBlock, SearchResultBlock, ServerToolResultBlock, ServerToolUseBlock, Source,
    TextBlock, ThinkingBlock, ToolResultBlock, ToolUseBlock,
};
pub use self::event::{
    CitationsDelta, ContentBlockDelta, ContentBlockStart, ContentBlockStop, ContentDelta,
    InputJsonDelta, MessageDelta, MessageStart, MessageStop, Ping, SignatureDelta, StopDelta,
    StreamEvent, TextDelta, ThinkingDelta,
};
pub use self::id::RequestId;
pub use self::message::{
    CacheCreation, Message, MessageParam, OutputTokensDetails, Role, ServerToolUsage, StopDetails,
    StopReason, Usage,
};
pub use self::meta::{Attempt, Delivery, ErrorKind, RateLimit, RateLimits};
pub use self::model::{Lifecycle, Model, ModelInfo};
pub use self::request::{MessageRequest, Metadata, OutputConfig, Thinking};
pub use self::tokens::Tokens;
pub use self::tool::{CustomTool, Tool, ToolChoice};
pub use self::wait::{Dimension, WaitCause, Waits};

pub(crate) use self::json::{parse, parse_response};
pub(crate) use self::meta::ResponseMeta;
pub(crate) use self::raw_event::{DeltaKind, ErrorEvent, EventError, RawEvent};
pub(crate) use self::request::{CountBody, CreateBody};
