//! Creates content blocks, and the results of tool calls.

use std::io;
use std::path::Path;

use serde_json::Map;

use super::content::{
    Content, ContentBlock, DocumentBlock, ImageBlock, SearchResultBlock, Source, ToolResultBlock,
};
use super::leaf_blocks::{ContainerUploadBlock, TextBlock, ToolUseBlock};

impl ContentBlock {
    /// Creates a text block.
    pub fn text(text: impl Into<String>) -> ContentBlock {
        ContentBlock::Text(TextBlock::new(text))
    }

    /// Creates an image block from bytes. `media_type` is `image/jpeg`, `image/png`, `image/gif` or
    /// `image/webp`.
    pub fn image(media_type: &str, bytes: &[u8]) -> ContentBlock {
        ContentBlock::image_from(Source::base64(media_type, bytes))
    }

    /// Creates an image block from a URL, from which the server fetches the image.
    pub fn image_url(url: impl Into<String>) -> ContentBlock {
        ContentBlock::image_from(Source::url(url))
    }

    /// Reads an image file and creates an image block. The first bytes tell the media type.
    ///
    /// ```no_run
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// let image = ContentBlock::image_file("sky.jpg")?;
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![image, ContentBlock::text("Which clouds are these?")]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is not a JPEG, PNG, GIF or WebP image
    /// ([`io::ErrorKind::InvalidData`]).
    pub fn image_file(path: impl AsRef<Path>) -> io::Result<ContentBlock> {
        Source::read_image(path.as_ref()).map(ContentBlock::image_from)
    }

    /// Creates an image block from any source.
    pub fn image_from(source: Source) -> ContentBlock {
        ContentBlock::Image(ImageBlock {
            source,
            cache_control: None,
            extra: Map::new(),
        })
    }

    /// Creates a document block from the bytes of a PDF.
    pub fn pdf(bytes: &[u8]) -> ContentBlock {
        ContentBlock::document_from(Source::base64("application/pdf", bytes))
    }

    /// Creates a document block from plain text.
    pub fn document(text: impl Into<String>) -> ContentBlock {
        ContentBlock::document_from(Source::text(text))
    }

    /// Creates a document block from the URL of a PDF, which the server fetches.
    pub fn document_url(url: impl Into<String>) -> ContentBlock {
        ContentBlock::document_from(Source::url(url))
    }

    /// Reads a PDF or UTF-8 text file and creates a document block. The file's name becomes the
    /// title.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is neither a PDF nor UTF-8 text
    /// ([`io::ErrorKind::InvalidData`]).
    pub fn document_file(path: impl AsRef<Path>) -> io::Result<ContentBlock> {
        let path = path.as_ref();
        let mut block = DocumentBlock::new(Source::read_document(path)?);
        block.title = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        Ok(ContentBlock::Document(block))
    }

    /// Creates a document block from any source.
    pub fn document_from(source: Source) -> ContentBlock {
        ContentBlock::Document(DocumentBlock::new(source))
    }

    /// Creates a search result with one text. The model does not cite it; see
    /// [`SearchResultBlock::cited`].
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    ///
    /// let found = vec![
    ///     ContentBlock::search_result("wiki/12", "Opening hours", "From 9 to 17."),
    ///     ContentBlock::search_result("wiki/30", "Fees", "10 a year."),
    /// ];
    /// let result = ContentBlock::tool_result("toolu_1", found);
    /// assert_eq!(serde_json::to_value(&result)?["content"][1]["source"], "wiki/30");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn search_result(
        source: impl Into<String>,
        title: impl Into<String>,
        text: impl Into<String>,
    ) -> ContentBlock {
        ContentBlock::SearchResult(SearchResultBlock::new(source, title, text))
    }

    /// Creates a block that puts an uploaded file into the code execution container.
    pub fn container_upload(file_id: impl Into<String>) -> ContentBlock {
        ContentBlock::ContainerUpload(ContainerUploadBlock {
            file_id: file_id.into(),
            cache_control: None,
            extra: Map::new(),
        })
    }

    /// Creates the result of the tool call with this id. Prefer [`ToolUseBlock::result`], which
    /// also copies the toolset from the call.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest, ToolUseBlock};
    /// use serde_json::json;
    ///
    /// // An invented call, which shows the model how to use the tool.
    /// let call = ToolUseBlock::new("toolu_1", "get_temp", json!({"town": "Lima"}));
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user("How warm is Lima?")
    ///     .assistant(ContentBlock::from(call))
    ///     .user(ContentBlock::tool_result("toolu_1", "21 °C"));
    /// # assert_eq!(request.messages.len(), 3);
    /// ```
    pub fn tool_result(
        tool_use_id: impl Into<String>,
        content: impl Into<Content>,
    ) -> ContentBlock {
        ContentBlock::ToolResult(ToolResultBlock::new(tool_use_id.into(), content.into()))
    }

    /// Creates the result of the failed tool call with this id; `message` tells the model what went
    /// wrong. Prefer [`ToolUseBlock::error`], which also copies the toolset from the call.
    pub fn tool_error(tool_use_id: impl Into<String>, message: impl Into<String>) -> ContentBlock {
        ContentBlock::ToolResult(ToolResultBlock::failed(tool_use_id.into(), message.into()))
    }
}

impl ToolUseBlock {
    /// Creates the result of this call.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message, MessageRequest};
    ///
    /// /// Adds the message with its tool calls, and their results.
    /// fn next(request: MessageRequest, message: Message) -> MessageRequest {
    ///     let results: Vec<ContentBlock> =
    ///         message.tool_uses().map(|call| call.result("21 °C")).collect();
    ///     request.message(message).user(results)
    /// }
    /// ```
    pub fn result(&self, content: impl Into<Content>) -> ContentBlock {
        let mut result = ToolResultBlock::new(self.id.clone(), content.into());
        result.toolset_name.clone_from(&self.toolset_name);
        ContentBlock::ToolResult(result)
    }

    /// Creates the result of this call for a tool that failed; `message` tells the model what went
    /// wrong.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, ToolUseBlock};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Question {
    ///     town: String,
    /// }
    ///
    /// /// Runs a tool. A model that reads what was wrong usually calls the tool again.
    /// fn temperature(call: &ToolUseBlock) -> ContentBlock {
    ///     match call.input_as::<Question>() {
    ///         Ok(question) if question.town == "Lima" => call.result("21 °C"),
    ///         Ok(_) => call.error("there is no such town"),
    ///         Err(error) => call.error(error.to_string()),
    ///     }
    /// }
    /// ```
    pub fn error(&self, message: impl Into<String>) -> ContentBlock {
        let mut result = ToolResultBlock::failed(self.id.clone(), message.into());
        result.toolset_name.clone_from(&self.toolset_name);
        ContentBlock::ToolResult(result)
    }
}

impl DocumentBlock {
    /// Creates a document without title, context or citations.
    pub fn new(source: Source) -> DocumentBlock {
        DocumentBlock {
            source,
            title: None,
            context: None,
            citations: None,
            cache_control: None,
            extra: Map::new(),
        }
    }

    /// Sets the title, which citations contain.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> DocumentBlock {
        self.title = Some(title.into());
        self
    }

    /// Sets information about the document for the model, which the model does not cite.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> DocumentBlock {
        self.context = Some(context.into());
        self
    }

    /// Makes the model cite the document.
    #[must_use]
    pub fn cited(mut self) -> DocumentBlock {
        self.citations = Some(serde_json::json!({"enabled": true}));
        self
    }
}

impl SearchResultBlock {
    /// Creates a search result with one text. The model does not cite it unless
    /// [`cited`](SearchResultBlock::cited) is set.
    pub fn new(
        source: impl Into<String>,
        title: impl Into<String>,
        text: impl Into<String>,
    ) -> SearchResultBlock {
        SearchResultBlock {
            source: source.into(),
            title: title.into(),
            content: vec![ContentBlock::text(text)],
            citations: None,
            cache_control: None,
            extra: Map::new(),
        }
    }

    /// Makes the model cite the search result.
    #[must_use]
    pub fn cited(mut self) -> SearchResultBlock {
        self.citations = Some(serde_json::json!({"enabled": true}));
        self
    }
}

impl ToolResultBlock {
    fn new(tool_use_id: String, content: Content) -> ToolResultBlock {
        ToolResultBlock {
            tool_use_id,
            content: Some(content),
            is_error: None,
            toolset_name: None,
            cache_control: None,
            extra: Map::new(),
        }
    }

    fn failed(tool_use_id: String, message: String) -> ToolResultBlock {
        let mut result = ToolResultBlock::new(tool_use_id, Content::from(message));
        result.is_error = Some(true);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_an_unreadable_file() {
        let error = ContentBlock::image_file("/nowhere/cat.png").unwrap_err();
        assert!(error.to_string().contains("/nowhere/cat.png"), "{error}");
    }
}
