"""Talks to the test server with the official Python client, and prints one line for each check.

`tests/it/interop.rs` starts the server, passes its URL in ANTHROPIC_BASE_URL, and knows its
response to each check: the header `x-check` carries the name of the check.
"""

import sys
import traceback

import anthropic

CHECKS = []
PROMPT = {
    "model": "claude-haiku-4-5",
    "max_tokens": 256,
    "messages": [{"role": "user", "content": "Grüße, 世界"}],
}


def check(function):
    CHECKS.append(function)
    return function


def same(what, found, expected):
    assert found == expected, f"{what}: found {found!r}, expected {expected!r}"


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def raised(error_class, call):
    try:
        call()
    except anthropic.APIError as error:
        same("the class of the error", type(error), error_class)
        return error
    raise AssertionError(f"no {error_class.__name__} was raised")


def refused(error_class, status, error_type, message, call):
    error = raised(error_class, call)
    same("status", error.status_code, status)
    same("type", error.type, error_type)
    same("message", error.body["error"]["message"], message)
    same("start of the request id", (error.request_id or "")[:9], "req_test_")


@check
def create(client):
    message = client.messages.create(**PROMPT)
    same("content", [(block.type, block.text) for block in message.content], [("text", "You said: Grüße, 世界")])
    same("model and role", (message.model, message.role), ("claude-haiku-4-5", "assistant"))
    same("stop reason", message.stop_reason, "end_turn")
    same("output tokens", message.usage.output_tokens, 7)
    assert message.usage.input_tokens > 0, "no input tokens"
    same("start of the request id", message._request_id[:9], "req_test_")


@check
def stream_text(client):
    with client.messages.stream(**PROMPT) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
        same("start of the request id", stream.request_id[:9], "req_test_")
    same("text deltas", text, "You said: Grüße, 世界")
    same("text", message.content[0].text, text)
    same("stop reason", message.stop_reason, "end_turn")
    same("output tokens", message.usage.output_tokens, 7)


@check
def stream_blocks(client):
    with client.messages.stream(**PROMPT) as stream:
        message = stream.get_final_message()
    expected = [
        {"type": "thinking", "thinking": "A town is meant.", "signature": "c2lnbmVk"},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"town": "Paris", "days": [1, 2]}},
        {"type": "tool_use", "id": "toolu_2", "name": "clock", "input": {}},
    ]
    same("content", without_nulls(message.to_dict(mode="json"))["content"], expected)
    same("stop reason", message.stop_reason, "tool_use")
    same("usage", (message.usage.input_tokens, message.usage.output_tokens), (12, 16))


@check
def stream_framing(client):
    with client.messages.stream(**PROMPT) as stream:
        message = stream.get_final_message()
    same("content", message.content[0].text, "one two three")
    same("stop reason", message.stop_reason, "max_tokens")
    same("usage", (message.usage.input_tokens, message.usage.output_tokens), (9, 256))


@check
def stream_overloaded(client):
    with client.messages.stream(**PROMPT) as stream:
        error = raised(anthropic.APIStatusError, stream.get_final_message)
    same("type", error.type, "overloaded_error")


@check
def count_tokens(client):
    prompt = {key: PROMPT[key] for key in ("model", "messages")}
    count = client.messages.count_tokens(**prompt)
    assert 1 < count.input_tokens < 50, f"{count.input_tokens} input tokens"


@check
def models(client):
    listed = list(client.models.list(limit=2))
    same("number of models", len(listed), 5)
    same("different ids", len({model.id for model in listed}), 5)
    model = client.models.retrieve("claude-haiku-4-5")
    same("model", model, listed[-1])
    same("display name", model.display_name, "Claude Haiku 4.5")
    same("year", model.created_at.year, 2025)
    same("window", model.max_input_tokens, 200_000)


@check
def batches(client):
    batches = client.messages.batches
    requests = [
        {"custom_id": "good", "params": PROMPT},
        {"custom_id": "bad", "params": {**PROMPT, "messages": []}},
        {"custom_id": "late", "params": PROMPT},
    ]
    batch = batches.create(requests=requests)
    same("status", batch.processing_status, "in_progress")
    same("counts", batch.request_counts.processing, 3)
    refused(
        anthropic.NotFoundError,
        404,
        "not_found_error",
        f"Message Batch {batch.id} has no available results.",
        lambda: client.get(f"/v1/messages/batches/{batch.id}/results", cast_to=object),
    )
    raised(anthropic.BadRequestError, lambda: batches.delete(batch.id))
    same("status", batches.retrieve(batch.id).processing_status, "in_progress")
    ended = batches.retrieve(batch.id)
    same("status", ended.processing_status, "ended")
    counts = ended.request_counts
    same("counts", (counts.succeeded, counts.errored, counts.expired), (1, 1, 1))
    results = {entry.custom_id: entry.result for entry in batches.results(batch.id)}
    same("text", results["good"].message.content[0].text, "You said: Grüße, 世界")
    same("error", results["bad"].error.error.type, "invalid_request_error")
    same("late", results["late"].type, "expired")
    other = batches.create(requests=requests[:1])
    same("list", [item.id for item in batches.list(limit=1)], [other.id, batch.id])
    same("status", batches.cancel(other.id).processing_status, "canceling")
    same("canceled", batches.retrieve(other.id).request_counts.canceled, 1)
    same("result", [entry.result.type for entry in batches.results(other.id)], ["canceled"])
    same("deleted", batches.delete(other.id).type, "message_batch_deleted")


@check
def overloaded(client):
    same("text", client.messages.create(**PROMPT).content[0].text, "at last")


@check
def rate_limited(client):
    with client.messages.stream(**PROMPT) as stream:
        same("text", stream.get_final_text(), "at last")


@check
def disconnected(client):
    same("text", client.messages.create(**PROMPT).content[0].text, "at last")


@check
def given_up(client):
    client = client.with_options(max_retries=1)
    call = lambda: client.messages.create(**PROMPT)
    refused(anthropic.OverloadedError, 529, "overloaded_error", "Overloaded", call)


@check
def bad_request(client):
    prompt = {**PROMPT, "messages": []}
    message = "messages: at least one message is required"
    call = lambda: client.messages.create(**prompt)
    refused(anthropic.BadRequestError, 400, "invalid_request_error", message, call)


@check
def bad_key(client):
    call = lambda: client.messages.stream(**PROMPT).__enter__()
    refused(anthropic.AuthenticationError, 401, "authentication_error", "invalid x-api-key", call)


@check
def not_found(client):
    call = lambda: client.models.retrieve("no-such-model")
    refused(anthropic.NotFoundError, 404, "not_found_error", "model: no-such-model", call)


def main():
    print(f"anthropic {anthropic.__version__} on Python {sys.version.split()[0]}")
    client = anthropic.Anthropic(max_retries=2, timeout=30)
    failed = 0
    for function in CHECKS:
        try:
            function(client.with_options(default_headers={"x-check": function.__name__}))
            print(f"ok {function.__name__}")
        except Exception as error:
            failed += 1
            print(f"FAILED {function.__name__}: {error}")
            if not isinstance(error, AssertionError):
                traceback.print_exc()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
