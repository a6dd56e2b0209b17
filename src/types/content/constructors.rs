//! Constructors of content blocks, and the results of tool calls.

use std::io;
use std::path::Path;

use serde_json::Map;

use super::content::{
    Content, ContentBlock, DocumentBlock, ImageBlock, SearchResultBlock, Source, ToolResultBlock,
};
use super::leaf_blocks::{ContainerUploadBlock, TextBlock, ToolUseBlock};

impl ContentBlock {
    /// Text.
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    ///
    /// assert_eq!(ContentBlock::text("Hello?"), ContentBlock::from("Hello?"));
    /// ```
    pub fn text(text: impl Into<String>) -> ContentBlock {
        ContentBlock::Text(TextBlock::new(text))
    }

    /// An image from its bytes; `media_type` is `image/jpeg`, `image/png`, `image/gif` or
    /// `image/webp`.
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    ///
    /// let block = ContentBlock::image("image/png", b"\x89PNG\r\n\x1a\n");
    /// assert_eq!(block.kind(), "image");
    /// ```
    pub fn image(media_type: &str, bytes: &[u8]) -> ContentBlock {
        ContentBlock::image_from(Source::base64(media_type, bytes))
    }

    /// An image that the server fetches.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// let sky = ContentBlock::image_url("https://example.com/sky.jpg");
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![sky, ContentBlock::text("Which clouds are these?")]);
    /// ```
    pub fn image_url(url: impl Into<String>) -> ContentBlock {
        ContentBlock::image_from(Source::url(url))
    }

    /// An image from a file, its kind recognised by its first bytes.
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
    /// When the file cannot be read, or is no JPEG, PNG, GIF or WebP image
    /// ([`io::ErrorKind::InvalidData`]).
    pub fn image_file(path: impl AsRef<Path>) -> io::Result<ContentBlock> {
        Source::read_image(path.as_ref()).map(ContentBlock::image_from)
    }

    /// An image from any source.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Source};
    ///
    /// // A picture that was uploaded once, for many requests.
    /// let sky = ContentBlock::image_from(Source::file("file_01Example"));
    /// assert_eq!(serde_json::to_value(&sky)?["source"]["file_id"], "file_01Example");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn image_from(source: Source) -> ContentBlock {
        ContentBlock::Image(ImageBlock {
            source,
            cache_control: None,
            extra: Map::new(),
        })
    }

    /// A PDF document from its bytes.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// # fn ask(bytes: &[u8]) -> MessageRequest {
    /// // Such as one that came by mail and never was a file.
    /// let invoice = ContentBlock::pdf(bytes);
    /// MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![invoice, ContentBlock::text("What is to be paid, and by when?")])
    /// # }
    /// # let request = ask(b"%PDF-1.7");
    /// # let json = serde_json::to_value(&request.messages[0].content)?;
    /// # assert_eq!(json[0]["source"]["media_type"], "application/pdf");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn pdf(bytes: &[u8]) -> ContentBlock {
        ContentBlock::document_from(Source::base64("application/pdf", bytes))
    }

    /// A plain text document.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// let statutes = ContentBlock::document("§ 1: Members pay 10 a year.");
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![statutes, ContentBlock::text("What do members pay?")]);
    /// ```
    pub fn document(text: impl Into<String>) -> ContentBlock {
        ContentBlock::document_from(Source::text(text))
    }

    /// A document that the server fetches.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// let report = ContentBlock::document_url("https://example.com/report.pdf");
    /// let request = MessageRequest::new("claude-haiku-4-5", 1024)
    ///     .user(vec![report, ContentBlock::text("Which towns does it name?")]);
    /// # let json = serde_json::to_value(&request)?;
    /// # assert_eq!(json["messages"][0]["content"][0]["source"]["type"], "url");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn document_url(url: impl Into<String>) -> ContentBlock {
        ContentBlock::document_from(Source::url(url))
    }

    /// A PDF or a UTF-8 text from a file; the file's name becomes the title.
    ///
    /// ```no_run
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    ///
    /// let report = ContentBlock::document_file("report.pdf")?;
    /// let request = MessageRequest::new("claude-haiku-4-5", 1024)
    ///     .user(vec![report, ContentBlock::text("Summarise this.")]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is neither a PDF nor UTF-8
    /// ([`io::ErrorKind::InvalidData`]).
    pub fn document_file(path: impl AsRef<Path>) -> io::Result<ContentBlock> {
        let path = path.as_ref();
        let mut block = DocumentBlock::new(Source::read_document(path)?);
        block.title = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        Ok(ContentBlock::Document(block))
    }

    /// A document from any source.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Source};
    ///
    /// // Two contracts that were uploaded before, to be compared.
    /// let contracts = ["file_01Example", "file_02Example"];
    /// let blocks = contracts.map(|id| ContentBlock::document_from(Source::file(id)));
    /// assert_eq!(serde_json::to_value(&blocks)?[1]["source"]["file_id"], "file_02Example");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn document_from(source: Source) -> ContentBlock {
        ContentBlock::Document(DocumentBlock::new(source))
    }

    /// A search result of your own, with its text; the model may cite it as a
    /// [`SearchResultBlock::cited`] one.
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

    /// A file that was uploaded before, for the code execution container.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest};
    /// use serde_json::json;
    ///
    /// let table = ContentBlock::container_upload("file_01Example");
    /// let request = MessageRequest::new("claude-opus-5", 4096)
    ///     .tool(json!({"type": "code_execution_20250825", "name": "code_execution"}))
    ///     .user(vec![table, ContentBlock::text("What is the median of the second column?")]);
    /// # assert_eq!(request.messages.len(), 1);
    /// ```
    pub fn container_upload(file_id: impl Into<String>) -> ContentBlock {
        ContentBlock::ContainerUpload(ContainerUploadBlock {
            file_id: file_id.into(),
            cache_control: None,
            extra: Map::new(),
        })
    }

    /// Your answer to the tool call `tool_use_id`, where only its id is at hand; see
    /// [`ToolUseBlock::result`], which also takes the toolset from the call.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, MessageRequest, ToolUseBlock};
    /// use serde_json::json;
    ///
    /// // An example, made up, of how to use the tool.
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

    /// Your answer to the tool call `tool_use_id`, which failed; `message` tells the model why. See
    /// [`ToolUseBlock::error`] as well.
    ///
    /// ```
    /// use anthropic_blocking::ContentBlock;
    ///
    /// let block = ContentBlock::tool_error("toolu_1", "there is no such town");
    /// assert_eq!(serde_json::to_value(&block)?["is_error"], true);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn tool_error(tool_use_id: impl Into<String>, message: impl Into<String>) -> ContentBlock {
        let message = Content::from(message.into());
        let mut result = ToolResultBlock::new(tool_use_id.into(), message);
        result.is_error = Some(true);
        ContentBlock::ToolResult(result)
    }
}

impl ToolUseBlock {
    /// Your answer to this call.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, Message, MessageRequest};
    ///
    /// /// The request that answers the tool calls of an answer.
    /// fn next(request: MessageRequest, answer: Message) -> MessageRequest {
    ///     let results: Vec<ContentBlock> =
    ///         answer.tool_uses().map(|call| call.result("21 °C")).collect();
    ///     request.message(answer).user(results)
    /// }
    /// ```
    pub fn result(&self, content: impl Into<Content>) -> ContentBlock {
        let mut result = ToolResultBlock::new(self.id.clone(), content.into());
        result.toolset_name.clone_from(&self.toolset_name);
        ContentBlock::ToolResult(result)
    }

    /// Your answer to this call, which failed; `message` tells the model why.
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
    /// /// Runs a tool. A model that reads what was wrong with its call mostly calls again.
    /// fn temperature(call: &ToolUseBlock) -> ContentBlock {
    ///     match call.input_as::<Question>() {
    ///         Ok(question) if question.town == "Lima" => call.result("21 °C"),
    ///         Ok(_) => call.error("there is no such town"),
    ///         Err(error) => call.error(error.to_string()),
    ///     }
    /// }
    /// ```
    pub fn error(&self, message: impl Into<String>) -> ContentBlock {
        let message = Content::from(message.into());
        let mut result = ToolResultBlock::new(self.id.clone(), message);
        result.toolset_name.clone_from(&self.toolset_name);
        result.is_error = Some(true);
        ContentBlock::ToolResult(result)
    }
}

impl DocumentBlock {
    /// A document without title, context or citations.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, DocumentBlock, Source};
    ///
    /// let statutes = DocumentBlock::new(Source::text("§ 1: Members pay 10 a year."));
    /// let short = ContentBlock::document("§ 1: Members pay 10 a year.");
    /// assert_eq!(ContentBlock::from(statutes), short);
    /// ```
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

    /// Gives it a title.
    ///
    /// ```
    /// use anthropic_blocking::{DocumentBlock, Source};
    ///
    /// // Citations name the document by its title.
    /// let statutes = DocumentBlock::new(Source::file("file_01Example")).title("Statutes");
    /// assert_eq!(statutes.title.as_deref(), Some("Statutes"));
    /// ```
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> DocumentBlock {
        self.title = Some(title.into());
        self
    }

    /// Tells the model something about the document that it does not cite.
    ///
    /// ```
    /// use anthropic_blocking::{DocumentBlock, Source};
    ///
    /// let statutes = DocumentBlock::new(Source::text("§ 1: Members pay 10 a year."))
    ///     .context("In force until 2024, then replaced");
    /// assert_eq!(statutes.context.as_deref(), Some("In force until 2024, then replaced"));
    /// ```
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> DocumentBlock {
        self.context = Some(context.into());
        self
    }

    /// Asks the model to cite the document.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, DocumentBlock, MessageRequest, Source};
    ///
    /// let statutes = DocumentBlock::new(Source::text("§ 1: Members pay 10 a year.")).cited();
    /// // The text blocks of the answer have `citations` then.
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![ContentBlock::from(statutes), ContentBlock::text("What do members pay?")]);
    /// # let json = serde_json::to_value(&request.messages[0].content)?;
    /// # assert_eq!(json[0]["citations"]["enabled"], true);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn cited(mut self) -> DocumentBlock {
        self.citations = Some(serde_json::json!({"enabled": true}));
        self
    }
}

impl SearchResultBlock {
    /// A search result of one text, not cited.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, SearchResultBlock};
    ///
    /// let mut hours = SearchResultBlock::new("wiki/12", "Opening hours", "From 9 to 17.");
    /// // The model cites each text by itself.
    /// hours.content.push(ContentBlock::text("Closed on Mondays."));
    /// assert_eq!(hours.content.len(), 2);
    /// ```
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

    /// Asks the model to cite the search result.
    ///
    /// ```
    /// use anthropic_blocking::SearchResultBlock;
    /// use serde_json::json;
    ///
    /// let hours = SearchResultBlock::new("wiki/12", "Opening hours", "From 9 to 17.").cited();
    /// assert_eq!(serde_json::to_value(&hours)?["citations"], json!({"enabled": true}));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_file_is_named_in_the_error() {
        let error = ContentBlock::image_file("/nowhere/cat.png").unwrap_err();
        assert!(error.to_string().contains("/nowhere/cat.png"), "{error}");
    }
}
