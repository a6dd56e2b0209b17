//! Content blocks: what a message is made of, in requests and in answers alike.

mod base64;
mod cache_control;
mod citation;
mod leaf_blocks;

mod content;

mod source;

mod constructors;

pub use self::cache_control::CacheControl;
pub use self::citation::Citation;
pub use self::content::{
    Content, ContentBlock, DocumentBlock, ImageBlock, SearchResultBlock, Source, ToolResultBlock,
};
pub use self::leaf_blocks::{
    ContainerUploadBlock, RedactedThinkingBlock, ServerToolResultBlock, ServerToolUseBlock,
    TextBlock, ThinkingBlock, ToolUseBlock,
};
