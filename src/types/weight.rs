//! How much of a request counts as text, for a guess at its tokens.

use super::content::{Content, ContentBlock, Source};
use super::request::MessageRequest;
use super::tool::Tool;

/// What a request's input comes to, as far as its looks tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Bytes of text, or what has as many tokens as so many bytes of text.
    pub(crate) bytes: u64,
    /// Whether it marks parts for the cache.
    pub(crate) is_cached: bool,
}

impl MessageRequest {
    /// Weighs a request whose body is this long.
    pub(crate) fn weigh(&self, body: usize) -> Weight {
        let mut scales = Scales {
            bytes: body as u64,
            is_cached: self.cache_control.is_some(),
        };
        self.system.iter().for_each(|system| scales.add(system));
        for message in &self.messages {
            scales.add(&message.content);
        }
        scales.is_cached |= self.tools.iter().any(Tool::is_cached);
        Weight {
            bytes: scales.bytes,
            is_cached: scales.is_cached,
        }
    }
}

struct Scales {
    bytes: u64,
    is_cached: bool,
}

impl Scales {
    fn add(&mut self, content: &Content) {
        let Content::Blocks(blocks) = content else {
            return;
        };
        for block in blocks {
            self.is_cached |= block.is_cached();
            match block {
                ContentBlock::Image(image) => self.replace(&image.source, |_| IMAGE),
                ContentBlock::Document(document) if document.source.kind != "text" => {
                    self.replace(&document.source, |data| data / PDF);
                }
                ContentBlock::ToolResult(result) => {
                    result.content.iter().for_each(|content| self.add(content));
                }
                _ => {}
            }
        }
    }

    fn replace(&mut self, source: &Source, weight: impl Fn(u64) -> u64) {
        let data = source.data.as_ref().map_or(0, String::len) as u64;
        self.bytes = self.bytes.saturating_sub(data) + weight(data);
    }
}

/// An image of a usual size has 1,500 tokens, as text of 3.5 bytes a token.
const IMAGE: u64 = 5_250;

/// A page of a PDF has some 70 kB in base64 and some 2,000 tokens, as text 7 kB.
const PDF: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CacheControl;

    fn weight(request: &MessageRequest) -> (u64, u64, bool) {
        let body = serde_json::to_vec(request).unwrap().len();
        let weight = request.weigh(body);
        (body as u64, weight.bytes, weight.is_cached)
    }

    #[test]
    fn text_weighs_as_it_is() {
        let request = MessageRequest::new("m", 10).system("s").user("Hello");
        let (body, bytes, is_cached) = weight(&request);
        assert_eq!((bytes, is_cached), (body, false));
    }

    #[test]
    fn images_and_pages_do_not_weigh_their_bytes() {
        let image = ContentBlock::image("image/png", &[7; 300_000]);
        let nested = ContentBlock::tool_result("t", vec![image.clone()]);
        for block in [image, nested] {
            let request = MessageRequest::new("m", 10).user(vec![block]);
            let (body, bytes, _) = weight(&request);
            assert_eq!(bytes, body - 400_000 + IMAGE);
        }
        let pdf = ContentBlock::pdf(&[7; 300_000]);
        let (body, bytes, _) = weight(&MessageRequest::new("m", 10).user(vec![pdf]));
        assert_eq!(bytes, body - 400_000 + 40_000);
    }

    #[test]
    fn marks_for_the_cache_are_found_wherever_they_are() {
        let marked = ContentBlock::text("t").cached(CacheControl::ephemeral());
        let request = MessageRequest::new("m", 10);
        assert!(!weight(&request).2);
        assert!(weight(&request.clone().user(vec![marked.clone()])).2);
        assert!(weight(&request.system(vec![marked])).2);
    }
}
