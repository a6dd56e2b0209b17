//! Reading a message's text, or a tool's input, as a type of the caller's.
//!
//! These methods return this crate's `Error`, which may hold a `Message`. Beside their types they
//! would make `types` and `error` import each other.

use serde::de::DeserializeOwned;

use crate::error::{Cause, Error, ErrorKind, Result, json_error};
use crate::types::{Message, ToolUseBlock};

impl Message {
    /// Parses the text as JSON of the type `T`, for responses to
    /// [`json_schema`](crate::MessageRequest::json_schema).
    ///
    /// ```
    /// use anthropic_blocking::Message;
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Place {
    ///     town: String,
    ///     river: String,
    /// }
    ///
    /// let message = Message::for_test(r#"{"town": "Lisbon", "river": "Tagus"}"#);
    /// let place: Place = message.json()?;
    /// assert_eq!((place.town.as_str(), place.river.as_str()), ("Lisbon", "Tagus"));
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`Decode`](ErrorKind::Decode) if the text is no JSON of that shape. The
    /// [`stop_reason`](Message::stop_reason) may say why: a message that `max_tokens` cut off is
    /// incomplete JSON, and a refusal is prose. The error does not quote the text.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let parsed = serde_json::from_str(&self.text());
        parsed.map_err(|error| misfit("reading the message", "JSON of the expected shape", &error))
    }
}

impl ToolUseBlock {
    /// Reads the input as the type `T`.
    ///
    /// ```
    /// use anthropic_blocking::ToolUseBlock;
    /// use serde::Deserialize;
    /// use serde_json::json;
    ///
    /// #[derive(Deserialize)]
    /// struct Question {
    ///     town: String,
    /// }
    ///
    /// let call = ToolUseBlock::new("toolu_1", "get_temp", json!({"town": "Lima"}));
    /// assert_eq!(call.input_as::<Question>()?.town, "Lima");
    /// # Ok::<(), anthropic_blocking::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Kind [`Decode`](ErrorKind::Decode) if the input is not of that shape, or was cut off; see
    /// [`raw_input`](ToolUseBlock::raw_input). The error does not quote the input.
    pub fn input_as<T: DeserializeOwned>(&self) -> Result<T> {
        let parsed = T::deserialize(&self.input);
        parsed.map_err(|error| misfit("reading a tool's input", "of the expected shape", &error))
    }
}

fn misfit(action: &'static str, expected: &'static str, error: &serde_json::Error) -> Error {
    let cause = Cause::unreadable(expected, Some(json_error(error)));
    Error::new(ErrorKind::Decode, action, cause)
}
