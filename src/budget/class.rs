//! The groups of models that share a rate limit.

use std::fmt;
use std::sync::Arc;

use crate::types::Model;

/// A group of models that share one rate limit.
///
/// [`ModelClass::of`] follows the published tables: all of Fable 5, of Opus 4 and of Sonnet 4 are
/// one class each, every other model is its own. A wrong class does little harm: two classes that
/// the server counts as one see each other as foreign use. Clones are cheap.
///
/// ```
/// use anthropic_blocking::ModelClass;
///
/// assert_eq!(ModelClass::of("claude-sonnet-4-5-20250929"), ModelClass::of("claude-sonnet-4-6"));
/// assert_ne!(ModelClass::of("claude-opus-5"), ModelClass::of("claude-opus-5-5"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelClass(Arc<str>);

impl ModelClass {
    /// The class that a model belongs to.
    ///
    /// ```
    /// use anthropic_blocking::ModelClass;
    ///
    /// assert_eq!(ModelClass::of("claude-haiku-4-5-20251001").as_str(), "claude-haiku-4-5");
    /// ```
    pub fn of(model: impl Into<Model>) -> ModelClass {
        let mut model = model.into();
        if model.as_str().bytes().any(|byte| byte.is_ascii_uppercase()) {
            model = Model::new(model.as_str().to_ascii_lowercase());
        }
        let line = model.line();
        let shared = SHARED.iter().find(|shared| {
            line.strip_prefix(**shared)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        });
        ModelClass(shared.copied().unwrap_or(line).into())
    }

    /// A class by a name of your own, for limits that are divided otherwise.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Limits, ModelClass};
    ///
    /// // A gateway counts all models together.
    /// let all = ModelClass::named("everything");
    /// let budget = Budget::new()
    ///     .classify(|_| ModelClass::named("everything"))
    ///     .limits(all, Limits::per_minute().requests(100));
    /// ```
    pub fn named(name: impl Into<String>) -> ModelClass {
        ModelClass(name.into().into())
    }

    /// The class of the same models in fast mode, which has limits of its own.
    pub(crate) fn fast(&self) -> ModelClass {
        ModelClass::named(format!("{self}{FAST}"))
    }

    pub(crate) fn is_fast(&self) -> bool {
        self.0.ends_with(FAST)
    }

    /// The name.
    ///
    /// ```
    /// use anthropic_blocking::ModelClass;
    ///
    /// let class = ModelClass::of("claude-opus-4-8");
    /// let metric = format!("claude_waiting{{class=\"{}\"}} 3", class.as_str());
    /// assert_eq!(metric, r#"claude_waiting{class="claude-opus-4"} 3"#);
    /// ```
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether tokens read from the cache count as input, as they do on Haiku 3.5 only.
    pub(crate) fn counts_cache_reads(&self) -> bool {
        self.0.contains("3-5-haiku")
    }
}

impl AsRef<str> for ModelClass {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ModelClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const FAST: &str = " fast";

/// The rows of the published tables that combine several models.
const SHARED: [&str; 4] = [
    "claude-fable-5",
    "claude-opus-4",
    "claude-sonnet-4",
    "claude-mythos",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_share_a_class_as_the_tables_say() {
        for (model, class) in [
            ("claude-haiku-4-5", "claude-haiku-4-5"),
            ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
            ("claude-opus-4-20250514", "claude-opus-4"),
            ("claude-opus-4-8", "claude-opus-4"),
            ("claude-sonnet-4-5@20250929", "claude-sonnet-4"),
            ("claude-fable-5-1", "claude-fable-5"),
            ("claude-fable-5", "claude-fable-5"),
            ("claude-opus-5", "claude-opus-5"),
            ("claude-opus-5-5", "claude-opus-5-5"),
            ("claude-opus-45", "claude-opus-45"),
            ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
            ("Claude-Mythos-2-Preview", "claude-mythos"),
            ("-20250101", ""),
            ("", ""),
            ("gpt-x", "gpt-x"),
        ] {
            assert_eq!(ModelClass::of(model).as_str(), class, "{model}");
        }
    }

    #[test]
    fn only_haiku_3_5_counts_cache_reads() {
        assert!(ModelClass::of("claude-3-5-haiku-20241022").counts_cache_reads());
        assert!(!ModelClass::of("claude-haiku-4-5").counts_cache_reads());
    }
}
