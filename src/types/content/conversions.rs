//! Conversions into content and content blocks.

use super::content::{
    Content, ContentBlock, DocumentBlock, ImageBlock, SearchResultBlock, ToolResultBlock,
};
use super::leaf_blocks::{
    ContainerUploadBlock, RedactedThinkingBlock, ServerToolResultBlock, ServerToolUseBlock,
    TextBlock, ThinkingBlock, ToolUseBlock,
};

impl From<&str> for Content {
    fn from(text: &str) -> Content {
        Content::Text(text.to_owned())
    }
}

impl From<&String> for Content {
    fn from(text: &String) -> Content {
        Content::Text(text.clone())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Content {
        Content::Text(text)
    }
}

impl From<ContentBlock> for Content {
    fn from(block: ContentBlock) -> Content {
        Content::Blocks(vec![block])
    }
}

impl From<Vec<ContentBlock>> for Content {
    fn from(blocks: Vec<ContentBlock>) -> Content {
        Content::Blocks(blocks)
    }
}

impl<const N: usize> From<[ContentBlock; N]> for Content {
    fn from(blocks: [ContentBlock; N]) -> Content {
        Content::Blocks(blocks.into())
    }
}

impl From<&str> for ContentBlock {
    fn from(text: &str) -> ContentBlock {
        ContentBlock::text(text)
    }
}

impl From<String> for ContentBlock {
    fn from(text: String) -> ContentBlock {
        ContentBlock::text(text)
    }
}

/// Implements `From` for the blocks that have their own type.
macro_rules! into_block {
    ($( $type:ident => $variant:ident ),* $(,)?) => { $(
        impl From<$type> for ContentBlock {
            fn from(block: $type) -> ContentBlock {
                ContentBlock::$variant(block)
            }
        }
    )* };
}

into_block! {
    TextBlock => Text,
    ImageBlock => Image,
    DocumentBlock => Document,
    SearchResultBlock => SearchResult,
    ThinkingBlock => Thinking,
    RedactedThinkingBlock => RedactedThinking,
    ToolUseBlock => ToolUse,
    ToolResultBlock => ToolResult,
    ServerToolUseBlock => ServerToolUse,
    ServerToolResultBlock => ServerToolResult,
    ContainerUploadBlock => ContainerUpload,
}
