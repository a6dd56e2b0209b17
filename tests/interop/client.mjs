// Talks to the test server with the official TypeScript client, and prints one line for each check.
//
// `tests/it/interop.rs` starts the server, passes its URL in ANTHROPIC_BASE_URL, and knows its
// response to each check: the header `x-check` carries the name of the check.

import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import { VERSION } from '@anthropic-ai/sdk/version';

const PROMPT = {
  model: 'claude-haiku-4-5',
  max_tokens: 256,
  messages: [{ role: 'user', content: 'Grüße, 世界' }],
};

function same(what, found, expected) {
  assert.deepEqual(found, expected, `${what}: found ${JSON.stringify(found)}, expected ${JSON.stringify(expected)}`);
}

function isRequestId(id) {
  assert.match(id ?? '', /^req_test_\d+$/, `the request id is ${id}`);
}

async function raised(errorClass, promise) {
  const error = await promise.then(
    () => assert.fail(`no ${errorClass.name} was raised`),
    (error) => error,
  );
  if (!(error instanceof Anthropic.APIError)) throw error;
  same('the class of the error', error.constructor.name, errorClass.name);
  return error;
}

async function refused(errorClass, status, type, message, promise) {
  const error = await raised(errorClass, promise);
  same('status', error.status, status);
  same('type', error.type, type);
  same('message', error.error.error.message, message);
  isRequestId(error.requestID);
}

const CHECKS = {
  async create(client) {
    const message = await client.messages.create(PROMPT);
    same('content', message.content, [{ type: 'text', text: 'You said: Grüße, 世界' }]);
    same('model and role', [message.model, message.role], ['claude-haiku-4-5', 'assistant']);
    same('stop reason', message.stop_reason, 'end_turn');
    same('output tokens', message.usage.output_tokens, 7);
    assert.ok(message.usage.input_tokens > 0, 'no input tokens');
    isRequestId(message._request_id);
  },

  async stream_text(client) {
    const deltas = [];
    const stream = client.messages.stream(PROMPT).on('text', (text) => deltas.push(text));
    const message = await stream.finalMessage();
    same('text deltas', deltas.join(''), 'You said: Grüße, 世界');
    same('text', message.content[0].text, deltas.join(''));
    same('stop reason', message.stop_reason, 'end_turn');
    same('output tokens', message.usage.output_tokens, 7);
    isRequestId(stream.request_id);
  },

  async stream_blocks(client) {
    const message = await client.messages.stream(PROMPT).finalMessage();
    same('content', JSON.parse(JSON.stringify(message.content)), [
      { type: 'thinking', thinking: 'A town is meant.', signature: 'c2lnbmVk' },
      { type: 'text', text: 'Let me look.' },
      { type: 'tool_use', id: 'toolu_1', name: 'weather', input: { town: 'Paris', days: [1, 2] } },
      { type: 'tool_use', id: 'toolu_2', name: 'clock', input: {} },
    ]);
    same('stop reason', message.stop_reason, 'tool_use');
    same('usage', [message.usage.input_tokens, message.usage.output_tokens], [12, 16]);
  },

  async stream_framing(client) {
    const message = await client.messages.stream(PROMPT).finalMessage();
    same('text', message.content[0].text, 'one two three');
    same('stop reason', message.stop_reason, 'max_tokens');
    same('usage', [message.usage.input_tokens, message.usage.output_tokens], [9, 256]);
  },

  async stream_overloaded(client) {
    const error = await raised(Anthropic.APIError, client.messages.stream(PROMPT).finalMessage());
    same('type', error.type, 'overloaded_error');
  },

  async count_tokens(client) {
    const { model, messages } = PROMPT;
    const { input_tokens } = await client.messages.countTokens({ model, messages });
    assert.ok(input_tokens > 1 && input_tokens < 50, `${input_tokens} input tokens`);
  },

  async models(client) {
    const listed = [];
    for await (const model of client.models.list({ limit: 2 })) listed.push(model);
    same('number of models', listed.length, 5);
    same('different ids', new Set(listed.map((model) => model.id)).size, 5);
    const model = await client.models.retrieve('claude-haiku-4-5');
    same('model', { ...model }, { ...listed.at(-1) });
    same('display name', model.display_name, 'Claude Haiku 4.5');
    same('year', new Date(model.created_at).getUTCFullYear(), 2025);
    same('window', model.max_input_tokens, 200_000);
  },

  async batches(client) {
    const { batches } = client.messages;
    const requests = [
      { custom_id: 'good', params: PROMPT },
      { custom_id: 'bad', params: { ...PROMPT, messages: [] } },
      { custom_id: 'late', params: PROMPT },
    ];
    const batch = await batches.create({ requests });
    same('status', batch.processing_status, 'in_progress');
    same('counts', batch.request_counts.processing, 3);
    const message = `Message Batch ${batch.id} has no available results.`;
    const early = client.get(`/v1/messages/batches/${batch.id}/results`);
    await refused(Anthropic.NotFoundError, 404, 'not_found_error', message, early);
    await raised(Anthropic.BadRequestError, batches.delete(batch.id));
    same('status', (await batches.retrieve(batch.id)).processing_status, 'in_progress');
    const ended = await batches.retrieve(batch.id);
    same('status', ended.processing_status, 'ended');
    const counts = ended.request_counts;
    same('counts', [counts.succeeded, counts.errored, counts.expired], [1, 1, 1]);
    const results = {};
    for await (const entry of await batches.results(batch.id)) results[entry.custom_id] = entry.result;
    same('text', results.good.message.content[0].text, 'You said: Grüße, 世界');
    same('error', results.bad.error.error.type, 'invalid_request_error');
    same('late', results.late.type, 'expired');
    const other = await batches.create({ requests: requests.slice(0, 1) });
    const listed = [];
    for await (const item of batches.list({ limit: 1 })) listed.push(item.id);
    same('list', listed, [other.id, batch.id]);
    same('status', (await batches.cancel(other.id)).processing_status, 'canceling');
    same('canceled', (await batches.retrieve(other.id)).request_counts.canceled, 1);
    const types = [];
    for await (const entry of await batches.results(other.id)) types.push(entry.result.type);
    same('result', types, ['canceled']);
    same('deleted', (await batches.delete(other.id)).type, 'message_batch_deleted');
  },

  async overloaded(client) {
    same('text', (await client.messages.create(PROMPT)).content[0].text, 'at last');
  },

  async rate_limited(client) {
    same('text', await client.messages.stream(PROMPT).finalText(), 'at last');
  },

  async disconnected(client) {
    same('text', (await client.messages.create(PROMPT)).content[0].text, 'at last');
  },

  async given_up(client) {
    const call = client.messages.create(PROMPT, { maxRetries: 1 });
    await refused(Anthropic.OverloadedError, 529, 'overloaded_error', 'Overloaded', call);
  },

  async bad_request(client) {
    const call = client.messages.create({ ...PROMPT, messages: [] });
    const message = 'messages: at least one message is required';
    await refused(Anthropic.BadRequestError, 400, 'invalid_request_error', message, call);
  },

  async bad_key(client) {
    const call = client.messages.stream(PROMPT).finalMessage();
    await refused(Anthropic.AuthenticationError, 401, 'authentication_error', 'invalid x-api-key', call);
  },

  async not_found(client) {
    const call = client.models.retrieve('no-such-model');
    await refused(Anthropic.NotFoundError, 404, 'not_found_error', 'model: no-such-model', call);
  },
};

console.log(`@anthropic-ai/sdk ${VERSION} on Node ${process.version}`);
const client = new Anthropic({ maxRetries: 2, timeout: 30_000 });
for (const [name, check] of Object.entries(CHECKS)) {
  try {
    await check(client.withOptions({ defaultHeaders: { 'x-check': name } }));
    console.log(`ok ${name}`);
  } catch (error) {
    process.exitCode = 1;
    console.log(`FAILED ${name}: ${error.message}`);
    if (error.name !== 'AssertionError') console.error(error);
  }
}
