//! Content blocks: what messages consist of, in requests and in responses alike.
//!
//! `content` holds [`Content`], [`ContentBlock`] and the blocks that contain content or a
//! [`Source`]: these types contain each other. `leaf_blocks` holds the other blocks. `source`,
//! `conversions` and `constructors` hold the functions with which callers create them.

mod base64;
mod cache_control;
mod citation;
mod leaf_blocks;

mod content;

mod conversions;
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
