//! How much of a request counts as text, for a guess at its tokens.

use serde_json::Value;

use super::content::{Content, ContentBlock, Source};
use super::request::MessageRequest;
use super::tool::Tool;

/// What a request's input comes to, as far as its looks tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SizeEstimate {
    /// Bytes of text, or what has as many tokens as so many bytes of text.
    pub(crate) bytes: u64,
    /// The most tokens that it can have, but for documents that are not in it.
    pub(crate) most: u64,
    /// Whether it marks parts for the cache.
    pub(crate) is_cached: bool,
}

impl MessageRequest {
    /// Weighs a request whose body is this long.
    pub(crate) fn estimate_size(&self, body: usize) -> SizeEstimate {
        let mut size = SizeEstimate {
            bytes: body as u64,
            // No token is shorter than a byte.
            most: body as u64,
            is_cached: self.cache_control.is_some(),
        };
        self.system
            .iter()
            .for_each(|system| size.add_content(system));
        for message in &self.messages {
            size.add_content(&message.content);
        }
        size.is_cached |= self.tools.iter().any(Tool::is_cached);
        size
    }
}

impl SizeEstimate {
    fn add_content(&mut self, content: &Content) {
        let Content::Blocks(blocks) = content else {
            return;
        };
        for block in blocks {
            self.is_cached |= block.is_cached();
            match block {
                ContentBlock::Image(image) => {
                    let data = data_len(&image.source);
                    self.bytes = self.bytes.saturating_sub(data) + IMAGE_BYTES;
                    self.most = self.most.saturating_sub(data) + LARGEST_IMAGE_TOKENS;
                }
                ContentBlock::Document(document) => {
                    let source = &document.source;
                    if source.kind != "text" {
                        self.add_document(source);
                    }
                    source
                        .content
                        .iter()
                        .for_each(|content| self.add_content(content));
                }
                ContentBlock::ToolResult(result) => {
                    result
                        .content
                        .iter()
                        .for_each(|content| self.add_content(content));
                }
                ContentBlock::ServerToolResult(result) => {
                    self.add_server_tool_result(&result.content)
                }
                _ => {}
            }
        }
    }

    /// What a tool of the server's found. Of that only a page that was fetched is not text, if it is a
    /// PDF.
    fn add_server_tool_result(&mut self, found: &Value) {
        let source = found.get("content").and_then(|page| page.get("source"));
        let Some(source) = source.filter(|source| source["type"] == "base64") else {
            return;
        };
        let data = source["data"].as_str().map_or(0, str::len) as u64;
        self.bytes = self.bytes.saturating_sub(data) + data / PDF_BASE64_PER_TEXT_BYTE;
    }

    fn add_document(&mut self, source: &Source) {
        let data = data_len(source);
        self.bytes = self.bytes.saturating_sub(data) + data / PDF_BASE64_PER_TEXT_BYTE;
        if source.url.is_some() || source.file_id.is_some() {
            self.bytes += REMOTE_DOCUMENT_BYTES;
            self.most += REMOTE_DOCUMENT_BYTES;
        }
    }
}

fn data_len(source: &Source) -> u64 {
    source.data.as_ref().map_or(0, String::len) as u64
}

/// An image of a usual size has 1,500 tokens, as text of 3.5 bytes a token.
const IMAGE_BYTES: u64 = 5_250;

/// The largest image that the server takes is of 8,000 by 8,000 pixels; a token is 28 by 28.
const LARGEST_IMAGE_TOKENS: u64 = 286 * 286;

/// A page of a PDF has some 70 kB in base64 and some 2,000 tokens, as text 7 kB.
const PDF_BASE64_PER_TEXT_BYTE: u64 = 10;

/// A document that is elsewhere may have any size: as much as five pages.
const REMOTE_DOCUMENT_BYTES: u64 = 35_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CacheControl;
    use serde_json::json;

    fn size(request: &MessageRequest) -> (u64, u64, bool) {
        let body = serde_json::to_vec(request).unwrap().len();
        let size = request.estimate_size(body);
        (body as u64, size.bytes, size.is_cached)
    }

    #[test]
    fn text_weighs_as_it_is() {
        let request = MessageRequest::new("m", 10).system("s").user("Hello");
        let (body, bytes, is_cached) = size(&request);
        assert_eq!((bytes, is_cached), (body, false));
    }

    fn most(block: ContentBlock) -> (u64, u64) {
        let request = MessageRequest::new("m", 10).user(vec![block]);
        let body = serde_json::to_vec(&request).unwrap().len();
        (body as u64, request.estimate_size(body).most)
    }

    #[test]
    fn images_and_pages_do_not_weigh_their_bytes() {
        let image = ContentBlock::image("image/png", &[7; 300_000]);
        let nested = ContentBlock::tool_result("t", vec![image.clone()]);
        for block in [image, nested] {
            let request = MessageRequest::new("m", 10).user(vec![block.clone()]);
            let (body, bytes, _) = size(&request);
            assert_eq!(bytes, body - 400_000 + IMAGE_BYTES);
            assert_eq!(most(block), (body, body - 400_000 + 81_796));
        }
        let image = ContentBlock::image("image/png", &[7; 300_000]);
        let page = ContentBlock::document_from(Source::content(vec![image]));
        let (body, bytes, _) = size(&MessageRequest::new("m", 10).user(vec![page]));
        assert_eq!(bytes, body - 400_000 + IMAGE_BYTES);
        let pdf = ContentBlock::pdf(&[7; 300_000]);
        let (body, bytes, _) = size(&MessageRequest::new("m", 10).user(vec![pdf.clone()]));
        assert_eq!(bytes, body - 400_000 + 40_000);
        assert_eq!(most(pdf), (body, body));
    }

    #[test]
    fn a_pdf_that_was_fetched_does_not_weigh_its_bytes() {
        let found = |kind: &str| {
            let source = json!({"type": kind, "media_type": "x", "data": "x".repeat(400_000)});
            let page = json!({"type": "document", "source": source});
            let result = json!({"type": "web_fetch_result", "content": page});
            let block = json!({"type": "web_fetch_tool_result", "tool_use_id": "s",
                "content": result});
            let block: ContentBlock = serde_json::from_value(block).unwrap();
            let (body, bytes, _) = size(&MessageRequest::new("m", 10).assistant(block));
            body - bytes
        };
        assert_eq!(found("base64"), 360_000);
        assert_eq!(found("text"), 0);
    }

    #[test]
    fn what_is_elsewhere_weighs_as_much_as_is_usual() {
        let url = "https://example.com/a";
        for source in [Source::url(url), Source::file("file_1")] {
            let document = ContentBlock::document_from(source.clone());
            let (body, bytes, _) = size(&MessageRequest::new("m", 10).user(vec![document]));
            assert_eq!(bytes, body + REMOTE_DOCUMENT_BYTES);
            let image = ContentBlock::image_from(source);
            let (body, bytes, _) = size(&MessageRequest::new("m", 10).user(vec![image]));
            assert_eq!(bytes, body + IMAGE_BYTES);
        }
    }

    #[test]
    fn marks_for_the_cache_are_found_wherever_they_are() {
        let marked = ContentBlock::text("t").cached(CacheControl::ephemeral());
        let request = MessageRequest::new("m", 10);
        assert!(!size(&request).2);
        assert!(size(&request.clone().user(vec![marked.clone()])).2);
        assert!(size(&request.system(vec![marked])).2);
    }
}
