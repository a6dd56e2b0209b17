//! The wire types, as programs meet them.

use std::iter::FusedIterator;

use anthropic_blocking::testing::TestServer;
use anthropic_blocking::{
    BatchResults, BatchRun, Budget, BulkRun, Client, ContentBlock, Error, Message, MessageParam,
    MessageRequest, MessageStream, Reservation, StopReason, TextBlock, ThinkingBlock, ToolUseBlock,
    Usage,
};
use serde_json::{Value, json};

use crate::support::{Lab, request};

#[test]
fn one_odd_block_does_not_cost_the_answer() {
    let odd = [
        json!({"type":"text","text":null}),
        json!({"type":"tool_use","id":null,"name":"n","input":{}}),
        json!({"type":"x_tool_result","tool_use_id":null,"content":[]}),
        json!({"type":null}),
        json!({"text":"b"}),
    ];
    for odd in odd {
        let answer = json!({"id":"msg_1","type":"message","role":"assistant","model":"m",
            "content":[{"type":"text","text":"a"}, odd, {"type":"text","text":"c"}],
            "stop_reason":"end_turn","stop_sequence":null,
            "usage":{"input_tokens":1,"output_tokens":2}});
        let message: Message = serde_json::from_str(&answer.to_string()).expect("a message");
        assert_eq!(message.text(), "ac", "{odd}");
        assert!(matches!(message.content[1], ContentBlock::Other(_)));
        assert_eq!(serde_json::to_value(&message).expect("JSON"), answer);
        assert_eq!(
            serde_json::to_value(MessageParam::from(message)).expect("JSON")["content"],
            answer["content"]
        );
    }
}

#[test]
fn content_that_is_no_list_of_objects_is_no_message() {
    for content in [
        json!(null),
        json!("a"),
        json!(["a"]),
        json!([null]),
        json!([[]]),
    ] {
        let answer = json!({"content": content}).to_string();
        assert!(
            serde_json::from_str::<Message>(&answer).is_err(),
            "{answer}"
        );
    }
}

#[test]
fn blocks_that_programs_build_have_the_documented_shape() {
    let blocks: [(ContentBlock, Value); 7] = [
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
            TextBlock::new("a").into(),
            json!({"type":"text","text":"a"}),
        ),
        (ContentBlock::text("a"), json!({"type":"text","text":"a"})),
    ];
    for (block, expected) in blocks {
        assert_eq!(serde_json::to_value(&block).expect("JSON"), expected);
        let read: ContentBlock = serde_json::from_value(expected).expect("a block");
        assert_eq!(read, block);
    }
}

#[test]
fn message_for_a_test_is_an_answer() {
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
fn what_threads_share_can_be_shared() {
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
fn an_iterator_at_its_end_stays_there() {
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
