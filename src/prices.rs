//! What models cost: the public price table, and the computation of costs.

use std::collections::BTreeMap;

use crate::types::{MessageRequest, Model, Tokens, Usage};

/// The price of one model, in US dollars per million tokens.
///
/// ```
/// use anthropic_blocking::{Price, Tokens};
///
/// const HAIKU: Price = Price::new(1.0, 5.0);
/// assert_eq!(HAIKU.cost(&Tokens::new(1_000_000, 200_000)), 2.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Price {
    /// Input that is neither read from the cache nor written to it.
    pub input: f64,
    /// Input written to the cache for five minutes.
    pub cache_write_5m: f64,
    /// Input written to the cache for an hour.
    pub cache_write_1h: f64,
    /// Input read from the cache.
    pub cache_read: f64,
    /// Output, thinking included.
    pub output: f64,
}

impl Price {
    /// Makes a price from those of input and output, in dollars per million tokens.
    ///
    /// The cache is priced as with most models: a write costs 1.25 times the input price for five
    /// minutes and twice the input price for an hour, a read a tenth of it.
    pub const fn new(input: f64, output: f64) -> Price {
        Price {
            input,
            cache_write_5m: 1.25 * input,
            cache_write_1h: 2.0 * input,
            cache_read: 0.1 * input,
            output,
        }
    }

    /// Sets the price of input that is read from the cache, in dollars per million tokens.
    #[must_use]
    pub const fn cache_read(mut self, dollars: f64) -> Price {
        self.cache_read = dollars;
        self
    }

    fn scaled_by(self, factor: f64) -> Price {
        Price {
            input: self.input * factor,
            cache_write_5m: self.cache_write_5m * factor,
            cache_write_1h: self.cache_write_1h * factor,
            cache_read: self.cache_read * factor,
            output: self.output * factor,
        }
    }

    /// Returns what these tokens cost, in dollars.
    pub fn cost(&self, tokens: &Tokens) -> f64 {
        let parts = [
            (tokens.input, self.input),
            (tokens.cache_write_5m, self.cache_write_5m),
            (tokens.cache_write_1h, self.cache_write_1h),
            (tokens.cache_read, self.cache_read),
            (tokens.output, self.output),
        ];
        parts
            .iter()
            .map(|(tokens, dollars)| *tokens as f64 * dollars / TOKENS_PER_PRICE)
            .sum()
    }

    /// Returns the price of the most expensive kind of input.
    fn highest_input(&self) -> f64 {
        let written = self.cache_write_5m.max(self.cache_write_1h);
        self.input.max(written).max(self.cache_read)
    }
}

/// The prices of models: the published ones, your own, or both.
///
/// The table has prices of tokens, and of web searches. It does not know about fast mode, discounts,
/// taxes, or surcharges for the geography in which a model runs. [`Bulk::run`](crate::Bulk::run), which
/// sees the requests, counts fast mode twice and adds a tenth for an `inference_geo`.
///
/// ```
/// use anthropic_blocking::{Price, Prices};
///
/// let prices = Prices::published().set("claude-haiku-4-5", Price::new(1.0, 5.0));
/// assert_eq!(prices.get("claude-haiku-4-5-20251001").map(|price| price.output), Some(5.0));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Prices {
    models: BTreeMap<Model, ModelPrices>,
    /// Dollars for each web search.
    per_search: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct ModelPrices {
    standard: Price,
    /// The price of requests with more than [`LONG_PROMPT`] input tokens.
    long_prompt: Price,
}

impl Prices {
    /// Returns an empty table, to be filled with the prices of a gateway, for example.
    pub fn none() -> Prices {
        Prices {
            models: BTreeMap::new(),
            per_search: 0.0,
        }
    }

    /// Returns the published prices of the first-party API as of 2026-11-23, web searches included.
    ///
    /// The table is part of this version of the crate. Compare it with the current price list before
    /// money depends on it.
    pub fn published() -> Prices {
        let mut prices = Prices::none();
        prices.per_search = PUBLISHED_PER_SEARCH;
        for (model, price) in PUBLISHED {
            prices = prices.set(model, price);
        }
        let (model, price) = PUBLISHED_LONG_PROMPT;
        prices.set_long(model, price)
    }

    /// Sets the price of a model, and of its dated ids, for prompts of any length. Replaces an earlier
    /// [`set_long`](Prices::set_long).
    #[must_use]
    pub fn set(mut self, model: impl Into<Model>, price: Price) -> Prices {
        let prices = ModelPrices {
            standard: price,
            long_prompt: price,
        };
        self.models.insert(model.into(), prices);
        self
    }

    /// Sets a different price of a model for requests with more than 100,000 input tokens. If the
    /// model has no price yet, shorter requests have this price, too.
    ///
    /// ```
    /// use anthropic_blocking::{Model, Price, Prices, Usage};
    ///
    /// let prices = Prices::none()
    ///     .set("claude-haiku-4-5", Price::new(1.0, 5.0))
    ///     .set_long("claude-haiku-4-5", Price::new(2.0, 10.0));
    /// let model = Model::new("claude-haiku-4-5");
    /// assert_eq!(prices.cost(&model, &Usage::new(200_000, 0)), Some(0.4));
    /// ```
    #[must_use]
    pub fn set_long(mut self, model: impl Into<Model>, price: Price) -> Prices {
        let model = model.into();
        let standard = self.find(&model).map_or(price, |prices| prices.standard);
        let prices = ModelPrices {
            standard,
            long_prompt: price,
        };
        self.models.insert(model, prices);
        self
    }

    /// Returns the prices of Message Batches: half of these for tokens, the same for web searches.
    #[must_use]
    pub fn for_batches(mut self) -> Prices {
        for prices in self.models.values_mut() {
            prices.standard = prices.standard.scaled_by(BATCH_FACTOR);
            prices.long_prompt = prices.long_prompt.scaled_by(BATCH_FACTOR);
        }
        self
    }

    /// Returns the price of a model for prompts of up to 100,000 tokens, or `None` if it is not
    /// known. A dated id has the price of its model.
    pub fn get(&self, model: impl Into<Model>) -> Option<Price> {
        self.find(&model.into()).map(|prices| prices.standard)
    }

    /// Returns what one message of a model cost, in dollars, web searches included; `None` if the
    /// model has no price.
    ///
    /// ```
    /// use anthropic_blocking::{Message, Prices};
    ///
    /// fn print_cost(message: &Message) {
    ///     if let Some(dollars) = Prices::published().cost(&message.model, &message.usage) {
    ///         println!("${dollars:.4}");
    ///     }
    /// }
    /// ```
    pub fn cost(&self, model: &Model, usage: &Usage) -> Option<f64> {
        let prices = self.find(model)?;
        let tokens = Tokens::of(usage);
        let is_long = tokens.total_input() > LONG_PROMPT;
        let tools = usage.server_tool_use.as_ref();
        let searches = tools.map_or(0, |tools| tools.web_search_requests);
        let price = if is_long {
            prices.long_prompt
        } else {
            prices.standard
        };
        Some(price.cost(&tokens) + searches as f64 * self.per_search)
    }

    /// Returns the most that a request with up to this many tokens of input and output can cost,
    /// without web searches; `None` if the model has no price.
    pub(crate) fn max_cost(&self, model: &Model, input: u64, output: u64) -> Option<f64> {
        let prices = self.find(model)?;
        let is_long = input > LONG_PROMPT;
        let (input, output) = (input as f64, output as f64);
        let cost = |price: Price| {
            (input * price.highest_input() + output * price.output) / TOKENS_PER_PRICE
        };
        // The real input may be shorter than its bound: then the standard price applies, which may be
        // the higher one.
        let long = if is_long {
            cost(prices.long_prompt)
        } else {
            0.0
        };
        Some(long.max(cost(prices.standard)))
    }

    /// Returns what the tokens and web searches of many requests cost; `None` if the model has no
    /// price. `long` is the part of `tokens` that requests with more than [`LONG_PROMPT`] input tokens
    /// used.
    pub(crate) fn cost_of_totals(
        &self,
        model: &Model,
        tokens: &Tokens,
        long: &Tokens,
        searches: u64,
    ) -> Option<f64> {
        let prices = self.find(model)?;
        let extra = prices.long_prompt.cost(long) - prices.standard.cost(long);
        Some(prices.standard.cost(tokens) + extra + searches as f64 * self.per_search)
    }

    /// Looks up a model by its id, then by the id without a date or `latest` at its end.
    fn find(&self, model: &Model) -> Option<&ModelPrices> {
        let found = self.models.get(model);
        found.or_else(|| self.models.get(&Model::from(model.undated_id())))
    }
}

/// Returns the factor by which fast mode and an `inference_geo` raise the price of a request.
pub(crate) fn surcharge_factor(request: &MessageRequest) -> f64 {
    let is_fast = request.speed.as_deref() == Some("fast");
    let geography = request.inference_geo.as_deref();
    let is_anywhere = geography.is_none_or(|geography| geography == "global");
    (if is_fast { FAST_FACTOR } else { 1.0 }) * (if is_anywhere { 1.0 } else { GEOGRAPHY_FACTOR })
}

/// Adds costs; `None` if one of them is unknown. The sum of nothing is zero, and not the minus zero
/// that `f64` has for it.
pub(crate) fn sum_costs(costs: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    costs.sum::<Option<f64>>().map(|sum| sum + 0.0)
}

/// The number of tokens that a price is for.
const TOKENS_PER_PRICE: f64 = 1e6;

/// Prompts with more tokens are long: some models charge more for them.
pub(crate) const LONG_PROMPT: u64 = 100_000;

/// The price of Message Batches relative to single requests, as published.
const BATCH_FACTOR: f64 = 0.5;

/// The price of fast mode relative to the standard speed: the factor of all models whose price for
/// fast mode is published.
const FAST_FACTOR: f64 = 2.0;

/// The price of a request with an `inference_geo` other than `global`, relative to one without.
const GEOGRAPHY_FACTOR: f64 = 1.1;

/// Dollars for a web search; as of 2026-11-23.
const PUBLISHED_PER_SEARCH: f64 = 0.01;

/// The only model that charges more for long prompts; as of 2026-11-23.
const PUBLISHED_LONG_PROMPT: (&str, Price) = ("claude-haiku-5-5", Price::new(0.5, 2.5));

/// Dollars per million tokens; as of 2026-11-23. A Mythos model costs as much as the Fable model of
/// the same number.
const PUBLISHED: [(&str, Price); 18] = [
    ("claude-mythos-5-2", Price::new(8.0, 40.0)),
    ("claude-mythos-5-1", Price::new(10.0, 50.0).cache_read(0.25)),
    ("claude-mythos-5", Price::new(10.0, 50.0)),
    ("claude-fable-5-2", Price::new(8.0, 40.0)),
    ("claude-fable-5-1", Price::new(10.0, 50.0).cache_read(0.25)),
    ("claude-fable-5", Price::new(10.0, 50.0)),
    ("claude-opus-5-5", Price::new(4.0, 20.0).cache_read(0.2)),
    ("claude-opus-5", Price::new(5.0, 25.0)),
    ("claude-opus-4-8", Price::new(5.0, 25.0)),
    ("claude-opus-4-7", Price::new(5.0, 25.0)),
    ("claude-opus-4-6", Price::new(5.0, 25.0)),
    ("claude-opus-4-5", Price::new(5.0, 25.0)),
    ("claude-sonnet-5-5", Price::new(2.0, 10.0).cache_read(0.1)),
    ("claude-sonnet-5", Price::new(2.0, 10.0)),
    ("claude-sonnet-4-6", Price::new(3.0, 15.0)),
    ("claude-sonnet-4-5", Price::new(3.0, 15.0)),
    ("claude-haiku-5-5", Price::new(0.1, 0.5)),
    ("claude-haiku-4-5", Price::new(1.0, 5.0)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: serde_json::Value) -> Usage {
        serde_json::from_value(json).unwrap()
    }

    #[track_caller]
    fn assert_dollars(cost: Option<f64>, expected: f64) {
        let cost = cost.expect("a price");
        assert!((cost - expected).abs() < 1e-9, "{cost} is not {expected}");
    }

    #[test]
    fn each_kind_of_token_has_its_price() {
        let prices = Prices::published();
        let usage = usage(serde_json::json!({
            "input_tokens": 1_000_000, "output_tokens": 100_000,
            "cache_creation_input_tokens": 300_000, "cache_read_input_tokens": 1_000_000,
            "cache_creation": {"ephemeral_5m_input_tokens": 200_000, "ephemeral_1h_input_tokens": 100_000},
            "server_tool_use": {"web_search_requests": 3},
        }));
        let model = Model::new("claude-haiku-4-5-20251001");
        let expected = 1.0 + 0.5 + 0.2 * 1.25 + 0.1 * 2.0 + 0.1 + 0.03;
        assert_dollars(prices.cost(&model, &usage), expected);
        let half = prices.for_batches().cost(&model, &usage);
        assert_dollars(half, (expected - 0.03) / 2.0 + 0.03);
    }

    #[test]
    fn long_prompts_cost_more_if_the_table_says_so() {
        let prices = Prices::published();
        let model = Model::new("claude-haiku-5-5");
        let short = usage(serde_json::json!({"input_tokens": 100_000, "output_tokens": 0}));
        let long = usage(serde_json::json!({"input_tokens": 100_001, "output_tokens": 0}));
        assert_dollars(prices.cost(&model, &short), 0.01);
        assert_dollars(prices.cost(&model, &long), 0.050_000_5);
        assert_dollars(prices.max_cost(&model, 1_000, 1_000_000), 0.500_2);
    }

    #[test]
    fn bound_covers_a_higher_standard_price() {
        let model = Model::new("m");
        let prices = Prices::none().set("m", Price::new(2.0, 10.0));
        let prices = prices.set_long("m", Price::new(1.0, 5.0).cache_read(3.0));
        assert_dollars(prices.max_cost(&model, 200_000, 0), 0.8);
        let prices = prices.set("m", Price::new(0.1, 1.0).cache_read(4.0));
        assert_dollars(prices.max_cost(&model, 1_000_000, 0), 4.0);
    }

    #[test]
    fn mythos_costs_as_much_as_fable() {
        let prices = Prices::published();
        for number in ["5", "5-1", "5-2"] {
            let [mythos, fable] =
                ["mythos", "fable"].map(|name| prices.get(format!("claude-{name}-{number}")));
            assert!(mythos.is_some() && mythos == fable, "{number}");
        }
    }

    #[test]
    fn long_price_can_be_set_for_any_id() {
        let long = usage(serde_json::json!({"input_tokens": 1_000_000, "output_tokens": 0}));
        let short = usage(serde_json::json!({"input_tokens": 100_000, "output_tokens": 0}));
        let prices = Prices::published()
            .set_long("claude-haiku-4-5-20251001", Price::new(3.0, 15.0))
            .set_long("unheard-of", Price::new(4.0, 20.0));
        let cost = |model: &str, usage| prices.cost(&Model::new(model), usage);
        assert_dollars(cost("claude-haiku-4-5-20251001", &long), 3.0);
        assert_dollars(cost("claude-haiku-4-5-20251001", &short), 0.1);
        assert_dollars(cost("claude-haiku-4-5", &long), 1.0);
        assert_dollars(cost("unheard-of", &long), 4.0);
        assert_dollars(cost("unheard-of", &short), 0.4);
    }

    #[test]
    fn unknown_models_have_no_price() {
        let prices = Prices::published();
        assert_eq!(prices.get("claude-unheard-of"), None);
        assert_eq!(
            prices.get("claude-opus-5-5-latest"),
            prices.get("claude-opus-5-5")
        );
        assert_eq!(Prices::none().get("claude-opus-5-5"), None);
        let nothing = crate::Totals::default()
            .cost(&prices)
            .expect("no model lacks a price");
        assert!(nothing.is_sign_positive(), "{nothing}");
    }
}
