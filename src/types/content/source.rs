//! The constructors of `Source`: from bytes, text, URLs, file ids and files on disk.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::Map;

use super::base64;
use super::content::{Content, Source};

impl Source {
    /// Creates a source from bytes, which are sent in base64. `media_type` is that of the bytes, such
    /// as `image/png` or `application/pdf`.
    pub fn base64(media_type: &str, bytes: &[u8]) -> Source {
        let mut source = Source::without_data("base64");
        source.media_type = Some(media_type.to_owned());
        source.data = Some(base64::encode(bytes));
        source
    }

    /// Creates a source from plain text.
    pub fn text(text: impl Into<String>) -> Source {
        let mut source = Source::without_data("text");
        source.media_type = Some("text/plain".to_owned());
        source.data = Some(text.into());
        source
    }

    /// Creates a source from a URL, from which the server fetches the data.
    pub fn url(url: impl Into<String>) -> Source {
        let mut source = Source::without_data("url");
        source.url = Some(url.into());
        source
    }

    /// Creates a source from the id of a file that was uploaded to the Files API.
    pub fn file(file_id: impl Into<String>) -> Source {
        let mut source = Source::without_data("file");
        source.file_id = Some(file_id.into());
        source
    }

    /// Creates the source of a document from text and image blocks. If citations are enabled, the
    /// model cites whole blocks.
    ///
    /// ```
    /// use anthropic_blocking::{ContentBlock, DocumentBlock, MessageRequest, Source};
    ///
    /// // The model cites whole paragraphs, as each is a block. Of plain text it would cite sentences.
    /// let statutes = ["§ 1: Members pay 10 a year.", "§ 2: Members meet in May."];
    /// let source = Source::content(statutes.map(ContentBlock::text));
    /// let question = ContentBlock::text("What do members pay?");
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .user(vec![DocumentBlock::new(source).cited().into(), question]);
    /// ```
    pub fn content(content: impl Into<Content>) -> Source {
        let mut source = Source::without_data("content");
        source.content = Some(content.into());
        source
    }

    /// Creates a source of this kind without any data.
    fn without_data(kind: &str) -> Source {
        Source {
            kind: kind.to_owned(),
            media_type: None,
            data: None,
            url: None,
            file_id: None,
            content: None,
            extra: Map::new(),
        }
    }

    /// Reads an image file, and recognizes its media type by its first bytes. Errors name the path.
    pub(super) fn read_image(path: &Path) -> io::Result<Source> {
        let bytes = read_file(path)?;
        match image_media_type(&bytes) {
            Some(media_type) => Ok(Source::base64(media_type, &bytes)),
            None => Err(invalid_data(path, "not a JPEG, PNG, GIF or WebP image")),
        }
    }

    /// Reads a PDF or UTF-8 text file. Errors name the path.
    pub(super) fn read_document(path: &Path) -> io::Result<Source> {
        let bytes = read_file(path)?;
        if bytes.starts_with(b"%PDF-") {
            return Ok(Source::base64("application/pdf", &bytes));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Source::text(text)),
            Err(_) => Err(invalid_data(path, "neither a PDF nor a UTF-8 text")),
        }
    }
}

/// Returns the media type of an image, recognized by the magic bytes of its format.
fn image_media_type(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else if bytes.starts_with(b"\x89PNG") {
        Some("image/png")
    } else if bytes.starts_with(b"GIF8") {
        Some("image/gif")
    // `RIFF` and the size of the file, which has 4 bytes, precede the name of the format.
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Some("image/webp")
    } else {
        None
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| error_with_path(path, error.kind(), &error))
}

fn invalid_data(path: &Path, problem: &str) -> io::Error {
    error_with_path(path, io::ErrorKind::InvalidData, &problem)
}

fn error_with_path(path: &Path, kind: io::ErrorKind, problem: &dyn fmt::Display) -> io::Error {
    io::Error::new(kind, format!("{}: {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_type_is_recognized_by_its_first_bytes() {
        assert_eq!(image_media_type(b"\xff\xd8\xff\xe0"), Some("image/jpeg"));
        assert_eq!(image_media_type(b"\x89PNG\r\n"), Some("image/png"));
        assert_eq!(image_media_type(b"GIF89a"), Some("image/gif"));
        assert_eq!(image_media_type(b"RIFF1234WEBPVP8"), Some("image/webp"));
        assert_eq!(image_media_type(b"RIFF1234WAVE"), None);
    }
}
