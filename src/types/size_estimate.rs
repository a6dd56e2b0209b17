//! The size of a request's input, from which its tokens are estimated.

use serde_json::Value;

use super::content::{Content, ContentBlock, Source};
use super::request::MessageRequest;
use super::tool::Tool;

/// The size of a request's input, estimated from its body without a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SizeEstimate {
    /// Bytes of text; other content counts as the text bytes that have as many tokens.
    pub(crate) bytes: u64,
    /// Upper bound of the tokens. Documents given by URL or file id, whose size is unknown, count
    /// with a typical size instead.
    pub(crate) max_tokens: u64,
    /// Whether any part is marked for the cache.
    pub(crate) has_cache_marks: bool,
}

impl MessageRequest {
    /// Estimates the size of this request, whose JSON body has `body_bytes` bytes.
    pub(crate) fn estimate_size(&self, body_bytes: usize) -> SizeEstimate {
        let mut size = SizeEstimate {
            bytes: body_bytes as u64,
            // No token is shorter than a byte.
            max_tokens: body_bytes as u64,
            has_cache_marks: self.cache_control.is_some(),
        };
        if let Some(system) = &self.system {
            size.correct_for(system);
        }
        for message in &self.messages {
            size.correct_for(&message.content);
        }
        size.has_cache_marks |= self.tools.iter().any(Tool::has_cache_control);
        size
    }
}

impl SizeEstimate {
    /// Replaces the bytes of images and documents, which the body counted as text, by their
    /// estimates, and looks for cache marks.
    fn correct_for(&mut self, content: &Content) {
        let Content::Blocks(blocks) = content else {
            return;
        };
        for block in blocks {
            self.has_cache_marks |= block.has_cache_control();
            match block {
                ContentBlock::Image(image) => {
                    let encoded = encoded_bytes(&image.source);
                    self.bytes = self.bytes.saturating_sub(encoded) + IMAGE_BYTES;
                    self.max_tokens =
                        self.max_tokens.saturating_sub(encoded) + LARGEST_IMAGE_TOKENS;
                }
                ContentBlock::Document(document) => {
                    let source = &document.source;
                    if source.kind != "text" {
                        self.correct_for_document(source);
                    }
                    if let Some(content) = &source.content {
                        self.correct_for(content);
                    }
                }
                ContentBlock::ToolResult(result) => {
                    if let Some(content) = &result.content {
                        self.correct_for(content);
                    }
                }
                ContentBlock::ServerToolResult(result) => {
                    self.correct_for_fetched_pdf(&result.content);
                }
                _ => {}
            }
        }
    }

    /// Corrects for the PDF in a web fetch result. All other results of server tools are text.
    fn correct_for_fetched_pdf(&mut self, result: &Value) {
        let source = result.get("content").and_then(|page| page.get("source"));
        let Some(source) = source.filter(|source| source["type"] == "base64") else {
            return;
        };
        let encoded = source["data"].as_str().map_or(0, str::len) as u64;
        self.bytes = self.bytes.saturating_sub(encoded) + encoded / PDF_BASE64_PER_TEXT_BYTE;
    }

    fn correct_for_document(&mut self, source: &Source) {
        let encoded = encoded_bytes(source);
        self.bytes = self.bytes.saturating_sub(encoded) + encoded / PDF_BASE64_PER_TEXT_BYTE;
        if source.url.is_some() || source.file_id.is_some() {
            self.bytes += REMOTE_DOCUMENT_BYTES;
            // No token is shorter than a byte.
            self.max_tokens += REMOTE_DOCUMENT_BYTES;
        }
    }
}

/// Returns the bytes of the source's base64 data in the request body.
fn encoded_bytes(source: &Source) -> u64 {
    source.data.as_ref().map_or(0, String::len) as u64
}

/// Text bytes that an image counts as: a typical image has 1,500 tokens, at 3.5 bytes per token.
const IMAGE_BYTES: u64 = 5_250;

/// Tokens of the largest image that the API accepts: 8,000 × 8,000 pixels, at 28 × 28 pixels per
/// token.
const LARGEST_IMAGE_TOKENS: u64 = 286 * 286;

/// Base64 bytes of a PDF that count as one text byte: a page has about 70 kB in base64 and about
/// 2,000 tokens, which are 7 kB of text at 3.5 bytes per token.
const PDF_BASE64_PER_TEXT_BYTE: u64 = 10;

/// Text bytes that a document given by URL or file id counts as: five pages of a PDF at 7 kB.
const REMOTE_DOCUMENT_BYTES: u64 = 35_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CacheControl;
    use serde_json::json;

    struct Estimated {
        body: u64,
        size: SizeEstimate,
    }

    fn estimate(request: &MessageRequest) -> Estimated {
        let body = serde_json::to_vec(request).unwrap().len();
        Estimated {
            body: body as u64,
            size: request.estimate_size(body),
        }
    }

    fn estimate_block(block: ContentBlock) -> Estimated {
        estimate(&MessageRequest::new("m", 10).user(vec![block]))
    }

    #[test]
    fn text_counts_with_its_bytes() {
        let request = MessageRequest::new("m", 10).system("s").user("Hello");
        let Estimated { body, size } = estimate(&request);
        assert_eq!((size.bytes, size.has_cache_marks), (body, false));
    }

    #[test]
    fn images_and_pdfs_count_with_estimates() {
        // 300,000 bytes are 400,000 in base64.
        let image = ContentBlock::image("image/png", &[7; 300_000]);
        let nested = ContentBlock::tool_result("t", vec![image.clone()]);
        for block in [image.clone(), nested] {
            let Estimated { body, size } = estimate_block(block);
            assert_eq!(size.bytes, body - 400_000 + IMAGE_BYTES);
            assert_eq!(size.max_tokens, body - 400_000 + 81_796);
        }
        let page = ContentBlock::document_from(Source::content(vec![image]));
        let Estimated { body, size } = estimate_block(page);
        assert_eq!(size.bytes, body - 400_000 + IMAGE_BYTES);
        let Estimated { body, size } = estimate_block(ContentBlock::pdf(&[7; 300_000]));
        assert_eq!(size.bytes, body - 400_000 + 40_000);
        assert_eq!(size.max_tokens, body);
    }

    #[test]
    fn fetched_pdf_counts_with_an_estimate() {
        let saved = |kind: &str| {
            let source = json!({"type": kind, "media_type": "x", "data": "x".repeat(400_000)});
            let page = json!({"type": "document", "source": source});
            let result = json!({"type": "web_fetch_result", "content": page});
            let block = json!({"type": "web_fetch_tool_result", "tool_use_id": "s",
                "content": result});
            let block: ContentBlock = serde_json::from_value(block).unwrap();
            let Estimated { body, size } = estimate(&MessageRequest::new("m", 10).assistant(block));
            body - size.bytes
        };
        assert_eq!(saved("base64"), 360_000);
        assert_eq!(saved("text"), 0);
    }

    #[test]
    fn content_by_url_or_file_id_has_a_typical_size() {
        for source in [Source::url("https://example.com/a"), Source::file("file_1")] {
            let document = ContentBlock::document_from(source.clone());
            let Estimated { body, size } = estimate_block(document);
            assert_eq!(size.bytes, body + REMOTE_DOCUMENT_BYTES);
            let Estimated { body, size } = estimate_block(ContentBlock::image_from(source));
            assert_eq!(size.bytes, body + IMAGE_BYTES);
        }
    }

    #[test]
    fn cache_marks_are_found_in_messages_and_system() {
        let has_cache_marks = |request: &MessageRequest| estimate(request).size.has_cache_marks;
        let marked = ContentBlock::text("t").cached(CacheControl::ephemeral());
        let request = MessageRequest::new("m", 10);
        assert!(!has_cache_marks(&request));
        assert!(has_cache_marks(&request.clone().user(vec![marked.clone()])));
        assert!(has_cache_marks(&request.system(vec![marked])));
    }
}
