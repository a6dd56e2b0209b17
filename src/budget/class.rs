//! The groups of models that share a rate limit.

use std::fmt;
use std::sync::Arc;

use crate::types::Model;

/// A group of models that share one rate limit.
///
/// [`ModelClass::of`] follows the published tables: all Fable 5 models form a class, as do all Opus
/// 4 models and all Sonnet 4 models; every other model has its own class. A wrong class does little
/// harm: if the server counts two classes together, each sees the other as use by other clients.
/// Clones are cheap.
///
/// ```
/// use anthropic_blocking::ModelClass;
///
/// assert_eq!(ModelClass::of("claude-sonnet-4-5-20250929"), ModelClass::of("claude-sonnet-4-6"));
/// assert_ne!(ModelClass::of("claude-opus-5"), ModelClass::of("claude-opus-5-5"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelClass {
    name: Arc<str>,
    /// Whether this is the class of models in fast mode; its name then ends with [`FAST`].
    is_fast: bool,
}

impl ModelClass {
    /// Returns the class of a model.
    pub fn of(model: impl Into<Model>) -> ModelClass {
        let mut model = model.into();
        if model.as_str().bytes().any(|byte| byte.is_ascii_uppercase()) {
            model = Model::new(model.as_str().to_ascii_lowercase());
        }
        let line = model.undated_id();
        let shared = SHARED.iter().find(|shared| {
            line.strip_prefix(**shared)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        });
        ModelClass::without_fast_mode(shared.copied().unwrap_or(line).into())
    }

    /// Creates a class with a name of your own, for limits that group models differently.
    pub fn named(name: impl Into<String>) -> ModelClass {
        ModelClass::without_fast_mode(name.into().into())
    }

    /// Returns the class of these models in fast mode, for which the server has separate limits.
    /// The limits that a [`Budget`](crate::Budget) has for the base class apply to the fast class
    /// as well, counted separately, unless the fast class has limits of its own.
    ///
    /// ```
    /// use anthropic_blocking::{Budget, Cost, Limits, ModelClass};
    ///
    /// // No request may use fast mode.
    /// let opus = ModelClass::of("claude-opus-5");
    /// let budget = Budget::new().limits(opus.fast(), Limits::per_minute().requests(0));
    /// assert!(budget.try_reserve(&opus.fast(), Cost::request()).is_err());
    /// assert!(budget.try_reserve(&opus, Cost::request()).is_ok());
    /// ```
    #[must_use]
    pub fn fast(&self) -> ModelClass {
        match self.is_fast {
            true => self.clone(),
            false => ModelClass {
                name: format!("{self}{FAST}").into(),
                is_fast: true,
            },
        }
    }

    pub(crate) fn is_fast(&self) -> bool {
        self.is_fast
    }

    /// Returns the base class of a fast class.
    pub(crate) fn base(&self) -> Option<ModelClass> {
        let name = self.name.strip_suffix(FAST).filter(|_| self.is_fast)?;
        Some(ModelClass::without_fast_mode(name.into()))
    }

    fn without_fast_mode(name: Arc<str>) -> ModelClass {
        let is_fast = false;
        ModelClass { name, is_fast }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether tokens read from the cache count as input: on Haiku 3.5 only.
    pub(crate) fn counts_cache_reads(&self) -> bool {
        self.name.contains("3-5-haiku")
    }
}

impl AsRef<str> for ModelClass {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ModelClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The end of the name of a fast class.
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
    fn fast_mode_does_not_depend_on_the_name() {
        let fast = ModelClass::of("claude-opus-5").fast();
        assert_eq!(fast.as_str(), "claude-opus-5 fast");
        assert_eq!(fast.base(), Some(ModelClass::of("claude-opus-5")));
        assert_eq!(fast.fast(), fast);
        let own = ModelClass::named("claude-opus-5 fast");
        assert!(!own.is_fast() && own != fast);
        assert_eq!(own.base(), None);
    }

    #[test]
    fn only_haiku_3_5_counts_cache_reads() {
        assert!(ModelClass::of("claude-3-5-haiku-20241022").counts_cache_reads());
        assert!(!ModelClass::of("claude-haiku-4-5").counts_cache_reads());
    }
}
