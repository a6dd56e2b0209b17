//! What tokens cost.

use std::collections::BTreeMap;

use crate::types::{MessageRequest, Model, Tokens, Usage};

/// Dollars per million tokens of one model.
///
/// ```
/// use anthropic_blocking::{Price, Tokens};
///
/// // Dollars per million tokens.
/// const HAIKU: Price = Price::new(1.0, 5.0);
/// assert_eq!(HAIKU.cost(&Tokens::new(1_000_000, 200_000)), 2.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Price {
    /// Input after the last cache breakpoint.
    pub input: f64,
    /// Input written to the cache for five minutes.
    pub cache_write_5m: f64,
    /// Input written to the cache for an hour.
    pub cache_write_1h: f64,
    /// Input read from the cache.
    pub cache_read: f64,
    /// Output.
    pub output: f64,
}

impl Price {
    /// A price of input and output. What goes through the cache costs what it does with most
    /// models: written 1.25 times the input for five minutes and twice for an hour, read a tenth.
    ///
    /// ```
    /// use anthropic_blocking::Price;
    ///
    /// let price = Price::new(4.0, 20.0);
    /// assert_eq!((price.cache_write_5m, price.cache_write_1h), (5.0, 8.0));
    /// ```
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
    ///
    /// ```
    /// use anthropic_blocking::{Price, Tokens};
    ///
    /// let mut tokens = Tokens::new(0, 0);
    /// tokens.cache_read = 2_000_000;
    /// assert_eq!(Price::new(4.0, 20.0).cache_read(0.25).cost(&tokens), 0.5);
    /// ```
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

    /// What these tokens cost, in dollars.
    ///
    /// ```
    /// use anthropic_blocking::{Price, Tokens};
    ///
    /// let tokens = Tokens::new(2_000_000, 100_000);
    /// assert_eq!(Price::new(3.0, 15.0).cost(&tokens), 7.5);
    /// ```
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
            .map(|(tokens, dollars)| *tokens as f64 * dollars / 1e6)
            .sum()
    }

    /// The dearest kind of input.
    fn highest_input(&self) -> f64 {
        let written = self.cache_write_5m.max(self.cache_write_1h);
        self.input.max(written).max(self.cache_read)
    }
}

/// What the models cost: a table that you can change, because prices do.
///
/// It knows nothing of fast mode, of discounts, of taxes, nor of surcharges for where a model runs; a
/// [`Bulk::run`](crate::Bulk::run), which sees the requests, counts fast mode twice and `inference_geo`
/// with a tenth more.
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
    per_search: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct ModelPrices {
    standard: Price,
    /// For prompts of more than 100,000 tokens.
    long_prompt: Price,
}

impl Prices {
    /// No prices.
    ///
    /// ```
    /// use anthropic_blocking::{Price, Prices};
    ///
    /// // What a gateway charges, and nothing else.
    /// let prices = Prices::none().set("house-model", Price::new(0.4, 2.0));
    /// assert_eq!(prices.get("claude-haiku-4-5"), None);
    /// ```
    pub fn none() -> Prices {
        Prices {
            models: BTreeMap::new(),
            per_search: 0.0,
        }
    }

    /// The published prices of the first-party API as of 2026-11-23. Look them up before you trust
    /// them with money.
    ///
    /// ```
    /// use anthropic_blocking::{Price, Prices};
    ///
    /// let prices = Prices::published();
    /// assert_eq!(prices.get("claude-haiku-4-5"), Some(Price::new(1.0, 5.0)));
    /// ```
    pub fn published() -> Prices {
        let mut prices = Prices::none();
        prices.per_search = 0.01;
        for (model, price) in PUBLISHED {
            prices = prices.set(model, price);
        }
        prices.set_long("claude-haiku-5-5", Price::new(0.5, 2.5))
    }

    /// Sets the price of a model, with all its dated ids, for prompts of any length: what
    /// [`set_long`](Prices::set_long) said of it before is gone.
    ///
    /// ```
    /// use anthropic_blocking::{Price, Prices};
    ///
    /// let prices = Prices::published().set("my-model", Price::new(0.4, 2.0));
    /// assert!(prices.get("my-model").is_some());
    /// ```
    #[must_use]
    pub fn set(mut self, model: impl Into<Model>, price: Price) -> Prices {
        let rates = ModelPrices {
            standard: price,
            long_prompt: price,
        };
        self.models.insert(model.into(), rates);
        self
    }

    /// Sets another price of a model for requests with more than 100,000 input tokens. A model that
    /// has no price yet has this one for shorter requests, too.
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
        let standard = self.rates(&model).map_or(price, |rates| rates.standard);
        self.models.insert(
            model,
            ModelPrices {
                standard,
                long_prompt: price,
            },
        );
        self
    }

    /// The prices of Message Batches: half of these.
    ///
    /// ```
    /// use anthropic_blocking::{Price, Prices};
    ///
    /// let prices = Prices::none().set("claude-haiku-4-5", Price::new(1.0, 5.0)).for_batches();
    /// assert_eq!(prices.get("claude-haiku-4-5").map(|price| price.output), Some(2.5));
    /// ```
    #[must_use]
    pub fn for_batches(mut self) -> Prices {
        for rates in self.models.values_mut() {
            rates.standard = rates.standard.scaled_by(0.5);
            rates.long_prompt = rates.long_prompt.scaled_by(0.5);
        }
        self
    }

    /// The price of a model, where it is known.
    ///
    /// ```
    /// use anthropic_blocking::{Price, Prices};
    ///
    /// let prices = Prices::none().set("claude-sonnet-4-5", Price::new(3.0, 15.0));
    /// assert_eq!(prices.get("claude-sonnet-4-5-20250929"), Some(Price::new(3.0, 15.0)));
    /// assert_eq!(prices.get("claude-sonnet-4"), None);
    /// ```
    pub fn get(&self, model: impl Into<Model>) -> Option<Price> {
        self.rates(&model.into()).map(|rates| rates.standard)
    }

    /// What one answer of a model cost, in dollars; `None` for a model without a price.
    ///
    /// ```
    /// use anthropic_blocking::{Message, Prices};
    ///
    /// # fn tell(message: &Message) {
    /// let cost = Prices::published().cost(&message.model, &message.usage);
    /// println!("{cost:?} dollars");
    /// # }
    /// ```
    pub fn cost(&self, model: &Model, usage: &Usage) -> Option<f64> {
        let rates = self.rates(model)?;
        let tokens = Tokens::of(usage);
        let is_long = tokens.all_input() > LONG_PROMPT;
        let tools = usage.server_tool_use.as_ref();
        let searches = tools.map_or(0, |tools| tools.web_search_requests);
        let price = if is_long {
            rates.long_prompt
        } else {
            rates.standard
        };
        Some(price.cost(&tokens) + searches as f64 * self.per_search)
    }

    /// The most that a request can cost; `None` for a model without a price.
    pub(crate) fn at_most(&self, model: &Model, input: u64, output: u64) -> Option<f64> {
        let rates = self.rates(model)?;
        let is_long = input > LONG_PROMPT;
        let (input, output) = (input as f64, output as f64);
        let cost = |price: Price| (input * price.highest_input() + output * price.output) / 1e6;
        // Input that is only so long at most may be short.
        let long = if is_long {
            cost(rates.long_prompt)
        } else {
            0.0
        };
        Some(long.max(cost(rates.standard)))
    }

    /// What tokens and searches of many requests cost; `long` are those among the tokens that
    /// requests with more than [`LONG_PROMPT`] input tokens used.
    pub(crate) fn cost_of_sums(
        &self,
        model: &Model,
        tokens: &Tokens,
        long: &Tokens,
        searches: u64,
    ) -> Option<f64> {
        let rates = self.rates(model)?;
        let extra = rates.long_prompt.cost(long) - rates.standard.cost(long);
        Some(rates.standard.cost(tokens) + extra + searches as f64 * self.per_search)
    }

    fn rates(&self, model: &Model) -> Option<&ModelPrices> {
        let found = self.models.get(model);
        found.or_else(|| self.models.get(&Model::from(model.line())))
    }
}

/// How many times the usual prices a request costs: twice in fast mode, as it does with all models
/// whose price for it is published, and a tenth more where it says in which geography it runs.
pub(crate) fn surcharge(request: &MessageRequest) -> f64 {
    let is_fast = request.speed.as_deref() == Some("fast");
    let geography = request.inference_geo.as_deref();
    let is_anywhere = geography.is_none_or(|geography| geography == "global");
    (if is_fast { 2.0 } else { 1.0 }) * (if is_anywhere { 1.0 } else { 1.1 })
}

/// A sum of nothing is zero, and not what `f64` has for it: minus zero.
pub(crate) fn sum(costs: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    costs.sum::<Option<f64>>().map(|sum| sum + 0.0)
}

/// Prompts of more tokens than this are long: some models charge more for them.
pub(crate) const LONG_PROMPT: u64 = 100_000;

/// Dollars per million tokens of input and output; as of 2026-11-23. Mythos costs what the Fable of
/// the same number does.
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
    fn long_prompts_cost_more_where_the_table_says_so() {
        let prices = Prices::published();
        let model = Model::new("claude-haiku-5-5");
        let short = usage(serde_json::json!({"input_tokens": 100_000, "output_tokens": 0}));
        let long = usage(serde_json::json!({"input_tokens": 100_001, "output_tokens": 0}));
        assert_dollars(prices.cost(&model, &short), 0.01);
        assert_dollars(prices.cost(&model, &long), 0.050_000_5);
        assert_dollars(prices.at_most(&model, 1_000, 1_000_000), 0.500_2);
    }

    #[test]
    fn what_may_be_long_may_be_short_and_dearer() {
        let model = Model::new("m");
        let prices = Prices::none().set("m", Price::new(2.0, 10.0));
        let prices = prices.set_long("m", Price::new(1.0, 5.0).cache_read(3.0));
        assert_dollars(prices.at_most(&model, 200_000, 0), 0.8);
        let prices = prices.set("m", Price::new(0.1, 1.0).cache_read(4.0));
        assert_dollars(prices.at_most(&model, 1_000_000, 0), 4.0);
    }

    #[test]
    fn mythos_costs_what_fable_does() {
        let prices = Prices::published();
        for number in ["5", "5-1", "5-2"] {
            let [mythos, fable] =
                ["mythos", "fable"].map(|name| prices.get(format!("claude-{name}-{number}")));
            assert!(mythos.is_some() && mythos == fable, "{number}");
        }
    }

    #[test]
    fn a_long_price_is_set_for_any_id() {
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
