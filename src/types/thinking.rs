//! Whether and how the model thinks before it responds.

use serde_json::Map;

use super::wire::wire_struct;

wire_struct! {
    /// Whether and how the model thinks before it responds. Each model accepts only some of the
    /// kinds.
    ///
    /// ```
    /// use anthropic_blocking::{MessageRequest, Thinking};
    ///
    /// let request = MessageRequest::new("claude-opus-5", 16_000)
    ///     .thinking(Thinking::adaptive().display("summarized"))
    ///     .effort("high")
    ///     .user("Is 2^61 - 1 a prime?");
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct Thinking {
        /// The kind: `enabled`, `adaptive`, `disabled` or `between_tools`.
        req kind = "type": String,
        /// The most tokens of thinking: at least 1024, and fewer than `max_tokens`.
        opt budget_tokens: u64,
        /// Which part of the thinking the response contains: `summarized` or `omitted`.
        opt display: String,
    }
}

impl Thinking {
    /// Thinking with up to `budget_tokens` tokens: at least 1024, and fewer than `max_tokens`. For
    /// models up to the 4.6 generation.
    pub fn enabled(budget_tokens: u64) -> Thinking {
        Thinking {
            budget_tokens: Some(budget_tokens),
            ..Thinking::of_kind("enabled")
        }
    }

    /// Thinking as much as the model decides, guided by the effort.
    pub fn adaptive() -> Thinking {
        Thinking::of_kind("adaptive")
    }

    /// No thinking.
    pub fn disabled() -> Thinking {
        Thinking::of_kind("disabled")
    }

    /// No thinking, but short progress notes between tool calls, which arrive as thinking blocks.
    /// For Sonnet 5.5, with an effort of `low`, `medium` or `high`.
    pub fn between_tools() -> Thinking {
        Thinking::of_kind("between_tools")
    }

    /// Sets which part of the thinking the response contains: `summarized` or `omitted`.
    #[must_use]
    pub fn display(mut self, display: impl Into<String>) -> Thinking {
        self.display = Some(display.into());
        self
    }

    fn of_kind(kind: &str) -> Thinking {
        Thinking {
            kind: kind.to_owned(),
            budget_tokens: None,
            display: None,
            extra: Map::new(),
        }
    }
}
