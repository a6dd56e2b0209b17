//! The wire types as callers use them.

use std::fmt::Debug;
use std::iter::FusedIterator;
use std::thread;
use std::time::Instant;

use anthropic_blocking::testing::{Reply, StreamScript, TestServer};
use anthropic_blocking::{
    ApiError, BatchEntry, BatchResults, BatchRun, Budget, BulkRun, Client, Content, ContentBlock,
    Error, ErrorKind, Message, MessageBatch, MessageParam, MessageRequest, MessageStream,
    ModelInfo, Reservation, Source, StopReason, StreamEvent, TextBlock, ThinkingBlock, Tool,
    ToolUseBlock, Usage,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::{Lab, request};

#[test]
fn odd_block_leaves_the_message_readable() {
    let odd = [
        json!({"type":"text","text":null}),
        json!({"type":"tool_use","id":null,"name":"n","input":{}}),
        json!({"type":"x_tool_result","tool_use_id":null,"content":[]}),
        json!({"type":null}),
        json!({"text":"b"}),
    ];
    for odd in odd {
        let json = json!({"id":"msg_1","type":"message","role":"assistant","model":"m",
            "content":[{"type":"text","text":"a"}, odd, {"type":"text","text":"c"}],
            "stop_reason":"end_turn","stop_sequence":null,
            "usage":{"input_tokens":1,"output_tokens":2}});
        let message: Message = serde_json::from_str(&json.to_string()).expect("a message");
        assert_eq!(message.text(), "ac", "{odd}");
        assert!(matches!(message.content[1], ContentBlock::Other(_)));
        assert_eq!(serde_json::to_value(&message).expect("JSON"), json);
        assert_eq!(
            serde_json::to_value(MessageParam::from(message)).expect("JSON")["content"],
            json["content"]
        );
    }
}

#[test]
fn content_must_be_a_list_of_objects() {
    for content in [
        json!(null),
        json!("a"),
        json!(["a"]),
        json!([null]),
        json!([[]]),
    ] {
        let message = json!({"content": content}).to_string();
        assert!(
            serde_json::from_str::<Message>(&message).is_err(),
            "{message}"
        );
    }
}

#[test]
fn built_blocks_have_the_documented_shape() {
    let blocks: [(ContentBlock, Value); 10] = [
        (
            ContentBlock::search_result("s", "t", "x"),
            json!({"type":"search_result","source":"s","title":"t",
                "content":[{"type":"text","text":"x"}]}),
        ),
        (
            anthropic_blocking::SearchResultBlock::new("s", "t", "x")
                .cited()
                .into(),
            json!({"type":"search_result","source":"s","title":"t",
                "content":[{"type":"text","text":"x"}],"citations":{"enabled":true}}),
        ),
        (
            ContentBlock::container_upload("f"),
            json!({"type":"container_upload","file_id":"f"}),
        ),
        (
            ToolUseBlock::new("t", "n", json!({"a": 1})).into(),
            json!({"type":"tool_use","id":"t","name":"n","input":{"a":1}}),
        ),
        (
            ThinkingBlock::new("hm", "s").into(),
            json!({"type":"thinking","thinking":"hm","signature":"s"}),
        ),
        (
            ThinkingBlock::new("", "s").into(),
            json!({"type":"thinking","thinking":"","signature":"s"}),
        ),
        (
            anthropic_blocking::RedactedThinkingBlock::new("d").into(),
            json!({"type":"redacted_thinking","data":"d"}),
        ),
        (
            TextBlock::new("a").into(),
            json!({"type":"text","text":"a"}),
        ),
        (ContentBlock::text("a"), json!({"type":"text","text":"a"})),
        (
            ContentBlock::document_from(Source::content([ContentBlock::text("a")])),
            json!({"type":"document","source":{"type":"content",
                "content":[{"type":"text","text":"a"}]}}),
        ),
    ];
    for (block, expected) in blocks {
        assert_eq!(serde_json::to_value(&block).expect("JSON"), expected);
        let read: ContentBlock = serde_json::from_value(expected).expect("a block");
        assert_eq!(read, block);
    }
}

#[test]
fn message_for_tests_is_complete() {
    let mut message = Message::for_test("a");
    message.usage = Usage::new(3, 4);
    assert_eq!(message.text(), "a");
    assert_eq!(message.stop_reason, Some(StopReason::EndTurn));
    assert_eq!((message.request_id(), message.attempts().len()), (None, 0));
    assert_eq!(
        serde_json::to_value(&message).expect("JSON"),
        json!({"type":"message","content":[{"type":"text","text":"a"}],
            "stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":4}})
    );
    let call = ToolUseBlock::new("t", "n", json!({}));
    let message = Message::for_test([ContentBlock::from(call)]);
    assert_eq!(message.tool_uses().count(), 1);
    let request = MessageRequest::new("m", 5).user("q").message(&message);
    assert_eq!(
        serde_json::to_value(&request).expect("JSON")["messages"][1]["role"],
        "assistant"
    );
}

#[test]
fn shared_types_are_send_and_sync() {
    fn is_shared<T: Send + Sync + 'static>() {}
    fn is_moved<T: Send + 'static>() {}
    is_shared::<Client>();
    is_shared::<Budget>();
    is_shared::<Error>();
    is_shared::<Message>();
    is_shared::<MessageStream>();
    is_shared::<TestServer>();
    is_moved::<BulkRun<String>>();
    is_moved::<BatchRun>();
    is_moved::<BatchResults>();
    is_moved::<Reservation>();
}

#[test]
fn iterators_are_fused() {
    fn end<T>(mut items: impl FusedIterator<Item = T>) -> usize {
        let count = items.by_ref().count();
        assert!(items.next().is_none());
        count
    }
    let lab = Lab::new();
    let client = &lab.client;
    let batch = client.batches().run([("a", request())]).expect("a batch");
    let id = batch.ids()[0].clone();

    assert!(end(client.models().list()) > 0);
    assert_eq!(end(batch), 1);
    assert_eq!(end(client.batches().results(&id).expect("results")), 1);
    assert_eq!(
        end(client.bulk().run([("a", request())]).expect("a run")),
        1
    );
    let stream = client.messages().stream(&request()).expect("a stream");
    assert!(end(stream) > 0);
}

#[test]
fn deeply_nested_json_is_an_error() {
    for levels in [128, 100_000] {
        for (open, close) in [
            ("[", "]"),
            (r#"{"a":"#, "}"),
            (r#"{"type":"text","text":"#, "}"),
            (
                r#"{"type":"search_result","source":"s","title":"t","content":["#,
                "]}",
            ),
            (
                r#"{"content":["#,
                r#"],"type":"tool_result","tool_use_id":"t"}"#,
            ),
        ] {
            let deep = format!("{}1{}", open.repeat(levels), close.repeat(levels));
            let message = format!(r#"{{"content":[{deep}],"usage":{{"new":{deep}}}}}"#);
            refused::<Content>(&format!("[{deep}]"));
            refused::<ContentBlock>(&format!(r#"{{"type":"tool_use","input":{deep}}}"#));
            refused::<Message>(&message);
            refused::<Usage>(&format!(r#"{{"input_tokens":{deep}}}"#));
            refused::<Tool>(&deep);
            refused::<MessageRequest>(&format!(
                r#"{{"model":"m","max_tokens":1,"messages":[],"tools":[{deep}]}}"#
            ));
            refused::<StreamEvent>(&format!(r#"{{"type":"ping","new":{deep}}}"#));
            refused::<StreamEvent>(&format!(r#"{{"new":{deep},"type":"future"}}"#));
            refused::<ApiError>(&format!(r#"{{"type":"a","details":{deep}}}"#));
            refused::<MessageBatch>(&format!(r#"{{"id":"b","request_counts":{deep}}}"#));
            refused::<ModelInfo>(&format!(r#"{{"id":"m","capabilities":{deep}}}"#));
            refused::<BatchEntry>(&format!(
                r#"{{"custom_id":"a","result":{{"type":"succeeded","message":{message}}}}}"#
            ));

            let lab = Lab::new();
            lab.server.push(Reply::json(200, &message));
            assert_eq!(lab.create_error().kind(), ErrorKind::Decode);
            let start =
                format!(r#"{{"type":"content_block_start","index":0,"content_block":{deep}}}"#);
            let script = StreamScript::new().message_start(1);
            let script = script.event("content_block_start", start).message_stop();
            lab.server.push(Reply::stream(script));
            assert_eq!(lab.create_error().kind(), ErrorKind::Decode);
            let error = format!(r#"{{"type":"error","error":{deep}}}"#);
            lab.server.push(Reply::json(400, error));
            assert_eq!(lab.create_error().kind(), ErrorKind::InvalidRequest);
        }
    }
}

#[test]
fn error_names_the_odd_field() {
    let lab = Lab::new();
    let message = json!({"type": "message", "content": "secret", "role": "assistant"});
    lab.server.push(Reply::json(200, message));
    let text = format!("{:?}", lab.create_error());
    assert!(
        text.contains("invalid type: a string, expected an array in the field content"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
}

#[track_caller]
fn refused<T: DeserializeOwned + Debug>(text: &str) {
    serde_json::from_str::<T>(text).expect_err("nested too deep");
}

/// Blocks take two levels of JSON each, of at most 127.
const MOST_BLOCKS: usize = 62;

#[test]
fn blocks_nest_as_deep_as_json_can() {
    // A thread of known stack size: with one test thread, tests run on the main thread's stack.
    let reader = thread::Builder::new().stack_size(2 << 20).spawn(|| {
        for block in [
            r#"{"type":"search_result","source":"s","title":"t","content":["#,
            r#"{"type":"tool_result","tool_use_id":"t","content":["#,
        ] {
            let (open, close) = (block.repeat(MOST_BLOCKS), "]}".repeat(MOST_BLOCKS));
            let message = same::<Message>(&format!(r#"{{"content":[{open}{close}]}}"#));
            let mut inner = message.content;
            for _ in 0..MOST_BLOCKS {
                inner = inside(inner.remove(0));
            }
            assert!(inner.is_empty());
        }
    });
    let read = reader.expect("a thread").join();
    read.expect("no panic");
}

#[track_caller]
fn inside(block: ContentBlock) -> Vec<ContentBlock> {
    match block {
        ContentBlock::SearchResult(block) => block.content,
        ContentBlock::ToolResult(block) => match block.content {
            Some(Content::Blocks(blocks)) => blocks,
            other => panic!("no blocks: {other:?}"),
        },
        other => panic!("neither: {other:?}"),
    }
}

#[test]
fn nested_blocks_parse_in_linear_time() {
    let long = format!(r#"{{"type":"x","y":[{}0]}}"#, "0,".repeat(20_000));
    for block in [
        r#"{"type":"search_result","source":"s","title":"t","content":["#,
        r#"{"type":"tool_result","tool_use_id":"t","content":["#,
    ] {
        let fastest = |levels: usize| {
            let (open, close) = (block.repeat(levels), "]}".repeat(levels));
            let text = format!(r#"{{"content":[{open}{long}{close}]}}"#);
            let took = (0..5).map(|_| {
                let began = Instant::now();
                serde_json::from_str::<Message>(&text).expect("a message");
                began.elapsed()
            });
            took.min().expect("some")
        };
        // Copying the inner blocks on each level would take sixty times as long.
        let (shallow, deep) = (fastest(1), fastest(MOST_BLOCKS - 2));
        assert!(deep < 12 * shallow, "{deep:?} rather than {shallow:?}");
    }
}

#[test]
fn odd_element_keeps_the_list_unchanged() {
    for content in [
        json!([{"type":"text","text":"a","citations":[]}, "odd", {"type":"future"}]),
        json!([{"type":"text","text":"a"}, 5]),
        json!([null]),
    ] {
        let text = json!({"content":[{"type":"tool_result","tool_use_id":"t","content":content}]});
        let message = same::<Message>(&text.to_string());
        let ContentBlock::ToolResult(block) = &message.content[0] else {
            panic!("another block: {message:?}");
        };
        assert_eq!((&block.content, &block.extra["content"]), (&None, &content));
    }
    let cited = json!({"type":"text","text":"a","citations":[{"type":"c","cited_text":"x"},{}]});
    let ContentBlock::Text(block) = same(&cited.to_string()) else {
        panic!("another block");
    };
    assert_eq!(block.citations, None);
}

/// Parses a value, and checks that it serializes to equal JSON.
#[track_caller]
fn same<T: DeserializeOwned + Serialize>(text: &str) -> T {
    let read: T = serde_json::from_str(text).expect("the type");
    let value: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(serde_json::to_value(&read).expect("JSON"), value);
    read
}

#[test]
fn tool_result_names_its_call_and_toolset() {
    let call = json!({"type": "tool_use", "id": "toolu_1", "name": "click", "input": {},
        "toolset_name": "browser"});
    let call: ToolUseBlock = serde_json::from_value(call).expect("a call");
    let result = json!({"type": "tool_result", "tool_use_id": "toolu_1", "content": "done",
        "toolset_name": "browser"});
    assert_eq!(
        serde_json::to_value(call.result("done")).expect("JSON"),
        result
    );
    let error = json!({"type": "tool_result", "tool_use_id": "toolu_1", "content": "no such button",
        "is_error": true, "toolset_name": "browser"});
    let block = call.error("no such button");
    assert_eq!(serde_json::to_value(block).expect("JSON"), error);
}

#[test]
fn unreturnable_messages_do_not_break_a_dialogue() {
    let lab = Lab::new();
    let cut = StreamScript::new()
        .message_start(5)
        .tool_use("toolu_1", "look", [r#"{"town": "Li"#])
        .message_delta("max_tokens", 9)
        .message_stop();
    let nothing = StreamScript::new().message_start(5).finish();
    let empty = StreamScript::new()
        .message_start(5)
        .text_block([""])
        .finish();
    let replies = [cut, nothing, empty].map(Reply::stream);
    lab.server.push_all(replies);
    let mut request = request();
    for turn in ["a", "b", "c"] {
        let message = lab.client.messages().create(&request).expect("a response");
        let results: Vec<_> = message
            .tool_uses()
            .map(|call| call.error("no whole input"))
            .collect();
        request.push(&message);
        if !results.is_empty() {
            request.push(MessageParam::user(results));
        }
        request.push(MessageParam::user(turn));
    }
    let kept = request.clone();
    lab.client.messages().create(&request).expect("a response");
    lab.client
        .messages()
        .count_tokens(&request)
        .expect("a count");
    assert_eq!(request, kept);

    let answered = json!([{"type":"tool_use","id":"toolu_1","name":"look",
        "input":{"INVALID_JSON":r#"{"town": "Li"#}}]);
    for sent in &lab.server.requests()[3..] {
        let messages = &sent.json()["messages"];
        let mut roles = messages.as_array().expect("turns").iter();
        assert!(roles.by_ref().skip(2).all(|turn| turn["role"] == "user"));
        assert_eq!(messages[1]["content"], answered);
    }
}

#[test]
fn model_turns_are_sent_as_the_server_accepts() {
    let text = |text: &str| json!({"type":"text","text":text});
    let call = |input: Value| json!({"type":"tool_use","id":"t","name":"n","input":input});
    let invalid = |text: &str| json!({"INVALID_JSON": text});
    let thought = json!({"type":"thinking","thinking":"","signature":"s"});
    let mcp = |input: Value| json!({"type":"mcp_tool_use","id":"m","name":"n","input":input});
    let server = |input: Value| json!({"type":"server_tool_use","id":"s","name":"n","input":input});
    let fine = json!([
        text("a"),
        text(" "),
        thought,
        text("b"),
        call(json!({"a": 1})),
        mcp(json!({}))
    ]);
    let bare = json!({"type":"tool_use","id":"t","name":"n"});
    for (answered, sent) in [
        (fine.clone(), Some(fine)),
        (json!("a"), Some(json!("a"))),
        (json!(""), None),
        (json!(" \n"), None),
        (json!([]), None),
        (json!([text(""), text("\n\n")]), None),
        (
            json!([text(""), text(" "), text("a")]),
            Some(json!([text(" "), text("a")])),
        ),
        (
            json!([thought, text(" "), call(json!({}))]),
            Some(json!([thought, call(json!({}))])),
        ),
        (json!([call(json!("{"))]), Some(json!([call(invalid("{"))]))),
        (
            json!([call(json!([1]))]),
            Some(json!([call(invalid("[1]"))])),
        ),
        (json!([call(json!(null))]), Some(json!([call(json!({}))]))),
        (json!([bare]), Some(json!([call(json!({}))]))),
        (json!([mcp(json!("{"))]), Some(json!([mcp(invalid("{"))]))),
        (
            json!([server(json!("{"))]),
            Some(json!([server(invalid("{"))])),
        ),
    ] {
        for role in ["assistant", "user"] {
            let lab = Lab::new();
            let turn = json!({"role": role, "content": answered});
            let turn: MessageParam = serde_json::from_value(turn).expect("a turn");
            let asked = request().message(turn).user("go on");
            lab.client.messages().create(&asked).expect("a response");
            let body = lab.server.requests()[0].json();
            let expected = match role {
                "user" => Some(&answered),
                _ => sent.as_ref(),
            };
            match expected {
                Some(content) => assert_eq!(&body["messages"][1]["content"], content),
                None => assert_eq!(body["messages"].as_array().map(Vec::len), Some(2), "{body}"),
            }
            assert_eq!(asked.messages.len(), 3);
        }
    }
}
