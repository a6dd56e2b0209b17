//! Tools that the model may call, and how it chooses among them.

use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::content::CacheControl;
use super::json::{JsonView, ParsedJson};
use super::wire::{self, Mismatch, WireStruct, WireValue, wire_struct};

/// A tool that the model may call; see [`MessageRequest::tool`](crate::MessageRequest::tool).
///
/// ```
/// use anthropic_blocking::Tool;
/// use serde_json::json;
///
/// let own = Tool::from(Tool::new("get_temp", json!({"type": "object"})));
/// let search = Tool::from(json!({"type": "web_search_20260318", "name": "web_search"}));
/// assert_eq!((own.name(), search.name()), (Some("get_temp"), Some("web_search")));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Tool {
    /// A tool that your program runs.
    Custom(CustomTool),
    /// Any other tool, such as a tool that runs on the server, as its JSON:
    /// `{"type": "web_search_20260318", "name": "web_search"}`.
    Other(Value),
}

wire_struct! {
    /// A tool that your program runs when the model calls it.
    ///
    /// ```
    /// use anthropic_blocking::{CacheControl, Tool};
    /// use serde_json::json;
    ///
    /// let tool = Tool::new("get_temp", json!({"type": "object", "properties": {}}))
    ///     .description("Current temperature here in °C")
    ///     .strict(true)
    ///     .cached(CacheControl::ephemeral());
    /// assert_eq!(tool.strict, Some(true));
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct CustomTool {
        /// The tool's name: letters, digits, `_` and `-`.
        req name: String,
        /// What the tool does and when to use it. The model reads this.
        opt description: String,
        /// The JSON schema of the tool's input, which is an object.
        req input_schema: Value,
        /// Whether the model's input must match the schema exactly.
        opt strict: bool,
        /// If set, the server caches the prompt up to the end of this tool.
        opt cache_control: CacheControl,
    }
}

impl Tool {
    /// Creates a tool that your program runs, with the JSON schema of its input.
    #[expect(clippy::new_ret_no_self, reason = "the common tool is the custom one")]
    pub fn new(name: impl Into<String>, input_schema: Value) -> CustomTool {
        CustomTool {
            name: name.into(),
            description: None,
            input_schema,
            strict: None,
            cache_control: None,
            extra: Map::new(),
        }
    }

    /// Returns the tool's name; `None` for a toolset.
    pub fn name(&self) -> Option<&str> {
        match self {
            Tool::Custom(tool) => Some(&tool.name),
            Tool::Other(value) => value.get("name")?.as_str(),
        }
    }

    /// Whether this tool marks the end of a prefix that the server should cache.
    pub(crate) fn has_cache_control(&self) -> bool {
        match self {
            Tool::Custom(tool) => tool.cache_control.is_some(),
            Tool::Other(tool) => tool.get("cache_control").is_some(),
        }
    }
}

impl CustomTool {
    /// Sets the description, which tells the model what the tool does and when to use it.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> CustomTool {
        self.description = Some(text.into());
        self
    }

    /// Sets whether the model's input must match the schema exactly.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> CustomTool {
        self.strict = Some(strict);
        self
    }

    /// Marks the tools up to this one as a prefix that the server should cache.
    #[must_use]
    pub fn cached(mut self, control: CacheControl) -> CustomTool {
        self.cache_control = Some(control);
        self
    }

    /// Sets a field for which this type has no field of its own; a value for a typed field is
    /// ignored if that field is set.
    ///
    /// ```
    /// use anthropic_blocking::Tool;
    /// use serde_json::json;
    ///
    /// // The server streams the input without waiting until it is complete.
    /// let tool = Tool::new("write_file", json!({"type": "object"}))
    ///     .field("eager_input_streaming", true);
    /// assert_eq!(serde_json::to_value(&tool)?["eager_input_streaming"], true);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> CustomTool {
        self.extra.insert(name.into(), value.into());
        self
    }
}

impl From<CustomTool> for Tool {
    fn from(tool: CustomTool) -> Tool {
        Tool::Custom(tool)
    }
}

impl From<Value> for Tool {
    fn from(value: Value) -> Tool {
        match read_custom(&ParsedJson::from(&value)) {
            Some(tool) => Tool::Custom(tool),
            None => Tool::Other(value),
        }
    }
}

impl WireValue for Tool {
    fn read(json: &ParsedJson<'_>) -> Result<Self, Mismatch> {
        let other = || Tool::Other(json.into());
        Ok(read_custom(json).map_or_else(other, Tool::Custom))
    }

    fn write(&self) -> JsonView<'_> {
        match self {
            Tool::Custom(tool) => tool.write(),
            Tool::Other(value) => value.write(),
        }
    }
}

fn read_custom(json: &ParsedJson<'_>) -> Option<CustomTool> {
    let object = json.as_object()?;
    match object.get("type") {
        None => {}
        Some(tag) if tag.as_str() == Some("custom") => {}
        Some(_) => return None,
    }
    CustomTool::read_fields(object).ok()
}

impl<'de> Deserialize<'de> for Tool {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        wire::deserialize(from)
    }
}

impl Serialize for Tool {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        wire::serialize(self, to)
    }
}

wire_struct! {
    /// How the model chooses among the tools.
    ///
    /// ```
    /// use anthropic_blocking::{MessageRequest, ToolChoice};
    ///
    /// let request = MessageRequest::new("claude-haiku-4-5", 256)
    ///     .tool_choice(ToolChoice::auto().one_at_a_time())
    ///     .user("How warm is Lima?");
    /// ```
    #[derive(Debug, Clone, PartialEq)]
    pub struct ToolChoice {
        /// The kind of choice: `auto`, `any`, `tool` or `none`.
        req kind = "type": String,
        /// The tool that the model must call.
        opt name: String,
        /// Whether the model may call at most one tool per message.
        opt disable_parallel_tool_use: bool,
    }
}

impl ToolChoice {
    /// Lets the model decide whether to call a tool: the server's default if the request has tools.
    pub fn auto() -> ToolChoice {
        ToolChoice::of_kind("auto")
    }

    /// Requires the model to call some tool. The newest models reject this.
    pub fn any() -> ToolChoice {
        ToolChoice::of_kind("any")
    }

    /// Requires the model to call the tool `name`. The newest models reject this.
    pub fn tool(name: impl Into<String>) -> ToolChoice {
        ToolChoice {
            name: Some(name.into()),
            ..ToolChoice::of_kind("tool")
        }
    }

    /// Forbids the model to call tools.
    pub fn none() -> ToolChoice {
        ToolChoice::of_kind("none")
    }

    /// Limits the model to one tool call per message.
    #[must_use]
    pub fn one_at_a_time(mut self) -> ToolChoice {
        self.disable_parallel_tool_use = Some(true);
        self
    }

    fn of_kind(kind: &str) -> ToolChoice {
        ToolChoice {
            kind: kind.to_owned(),
            name: None,
            disable_parallel_tool_use: None,
            extra: Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tools_of_every_kind_round_trip() {
        for json in [
            json!({"name":"n","input_schema":{"type":"object"}}),
            json!({"type":"custom","name":"n","input_schema":{},"defer_loading":true}),
            json!({"type":"web_search_20260318","name":"web_search","max_uses":2}),
            json!({"type":"computer_toolset_20260801","configs":{}}),
        ] {
            let tool: Tool = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(&tool).unwrap(), json);
        }
    }

    #[test]
    fn tool_choice_has_the_documented_shape() {
        assert_eq!(
            serde_json::to_value(ToolChoice::tool("n").one_at_a_time()).unwrap(),
            json!({"type":"tool","name":"n","disable_parallel_tool_use":true})
        );
    }

    #[test]
    fn tool_takes_unknown_fields_beside_its_own() {
        let tool = Tool::new("look", json!({}))
            .field("defer_loading", true)
            .field("name", "other");
        let json = json!({"name": "look", "input_schema": {}, "defer_loading": true});
        assert_eq!(serde_json::to_value(&tool).unwrap(), json);
    }
}
