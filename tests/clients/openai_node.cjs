// The official SDK for Node, on a server whose model follows a script. OPENAI_BASE_URL names it.

const assert = require("node:assert/strict");
const { test } = require("node:test");
const { default: OpenAI } = require("openai");
const { zodTextFormat, zodResponsesFunction } = require("openai/helpers/zod");
const { ResponsesWS } = require("openai/resources/responses/ws");
const { z } = require("zod");

const client = new OpenAI({ maxRetries: 0 });

const TEXT_STREAM = [
  "response.created",
  "response.in_progress",
  "response.output_item.added",
  "response.content_part.added",
  "response.output_text.delta",
  "response.output_text.delta",
  "response.output_text.done",
  "response.content_part.done",
  "response.output_item.done",
  "response.completed",
];

const hello = { model: "text:Hello there", input: "Hi" };

const WEATHER = {
  type: "function",
  name: "get_weather",
  description: "The weather in a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
  strict: true,
};

async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

const types = (events) => events.map((event) => event.type);

test("a plain create gives the whole response", async () => {
  const response = await client.responses.create(hello);
  assert.equal(response.status, "completed");
  assert.equal(response.output_text, "Hello there");
  assert.match(response._request_id, /^req_/);
});

test("a stream says what the API says in its order", async () => {
  const events = await all(await client.responses.create({ ...hello, stream: true }));
  assert.deepEqual(types(events), TEXT_STREAM);
  assert.deepEqual(events.map((event) => event.sequence_number), [...Array(10).keys()]);
});

test("the stream helper makes the response", async () => {
  const stream = client.responses.stream(hello);
  const deltas = [];
  stream.on("response.output_text.delta", (event) => deltas.push(event.delta));
  const response = await stream.finalResponse();
  assert.deepEqual(deltas, ["Hello", " there"]);
  assert.equal(response.output_text, "Hello there");
});

test("the stream helper follows a response from any event", async () => {
  const { id } = await client.responses.create(hello);
  const events = await all(client.responses.stream({ response_id: id, starting_after: 4 }));
  assert.deepEqual(types(events), TEXT_STREAM.slice(5));
});

test("an answer is parsed by a zod schema", async () => {
  const Place = z.object({ city: z.string(), people: z.number() });
  const response = await client.responses.parse({
    model: 'text:{"city": "Paris", "people": 2}',
    input: "Where?",
    text: { format: zodTextFormat(Place, "place") },
  });
  assert.deepEqual(response.output_parsed, { city: "Paris", people: 2 });
});

test("the arguments of a function are parsed by a zod schema", async () => {
  const weather = zodResponsesFunction({ name: "get_weather", parameters: z.object({ city: z.string() }) });
  const response = await client.responses.parse({ model: "tools", input: "The weather?", tools: [weather] });
  assert.deepEqual(response.output.map((call) => call.parsed_arguments), [{ city: "Paris" }, { city: "Rome" }]);
});

test("a function is called and its output answered in a second turn", async () => {
  const asked = await client.responses.create({ model: "tools", input: "The weather?", tools: [WEATHER] });
  const told = await client.responses.create({
    model: "tools",
    input: asked.output.map((call) => ({ type: "function_call_output", call_id: call.call_id, output: "mild" })),
    tools: [WEATHER],
    previous_response_id: asked.id,
  });
  assert.equal(told.output_text, "The results: mild, mild");
});

test("a background response is polled to its end", async () => {
  let response = await client.responses.create({ ...hello, background: true });
  assert.equal(response.status, "queued");
  while (response.status === "queued" || response.status === "in_progress") {
    response = await client.responses.retrieve(response.id);
  }
  assert.equal(response.output_text, "Hello there");
});

test("a background stream that broke off is resumed behind what was seen", async () => {
  const stream = await client.responses.create({ ...hello, background: true, stream: true });
  const seen = [];
  for await (const event of stream) {
    seen.push(event);
    if (event.type === "response.output_text.delta") break;
  }
  const rest = await client.responses.retrieve(seen[0].response.id, {
    stream: true,
    starting_after: seen.at(-1).sequence_number,
  });
  seen.push(...(await all(rest)));
  assert.deepEqual(types(seen), ["response.created", "response.queued", ...TEXT_STREAM.slice(1)]);
  assert.deepEqual(seen.map((event) => event.sequence_number), [...Array(11).keys()]);
});

test("a background response is cancelled", async () => {
  const { id } = await client.responses.create({ model: "hang", input: "Hi", background: true });
  assert.equal((await client.responses.cancel(id)).status, "cancelled");
});

test("a deleted response is gone", async () => {
  const { id } = await client.responses.create(hello);
  await client.responses.delete(id);
  await assert.rejects(client.responses.retrieve(id), OpenAI.NotFoundError);
});

test("input items are listed, page by page", async () => {
  const first = await client.responses.create(hello);
  const second = await client.responses.create({ ...hello, input: "And?", previous_response_id: first.id });
  const items = await all(client.responses.inputItems.list(second.id, { limit: 1, order: "asc" }));
  assert.deepEqual(items.map((item) => [item.role, item.content[0].text]), [
    ["user", "Hi"],
    ["assistant", "Hello there"],
    ["user", "And?"],
  ]);
});

test("input tokens are counted", async () => {
  const count = await client.responses.inputTokens.count({ model: "text", input: "Hi" });
  assert.equal(count.object, "response.input_tokens");
  assert.ok(count.input_tokens > 0);
});

test("a conversation is compacted and goes on from there", async () => {
  const input = [
    { role: "user", content: "A word?" },
    { role: "assistant", content: "Cobalt." },
  ];
  const compacted = await client.responses.compact({ model: "text:They spoke of cobalt", input });
  assert.equal(compacted.object, "response.compaction");
  assert.equal(compacted.output.at(-1).type, "compaction");
  const after = await client.responses.create({ ...hello, input: [...compacted.output, { role: "user", content: "And?" }] });
  assert.equal(after.output_text, "Hello there");
});

test("a conversation keeps the items of its responses", async () => {
  const conversation = await client.conversations.create({ metadata: { of: "node" } });
  await client.responses.create({ ...hello, conversation: conversation.id });
  await client.responses.create({ ...hello, input: "And?", conversation: { id: conversation.id } });
  const items = await all(client.conversations.items.list(conversation.id, { order: "asc" }));
  assert.deepEqual(items.map((item) => item.content[0].text), ["Hi", "Hello there", "And?", "Hello there"]);

  const item = await client.conversations.items.retrieve(items[0].id, { conversation_id: conversation.id });
  assert.deepEqual(item, items[0]);
  await client.conversations.items.delete(items[0].id, { conversation_id: conversation.id });
  await client.conversations.items.create(conversation.id, { items: [{ role: "user", content: "One more" }] });
  assert.equal((await all(client.conversations.items.list(conversation.id))).length, 4);

  const updated = await client.conversations.update(conversation.id, { metadata: { of: "nobody" } });
  assert.deepEqual(updated.metadata, { of: "nobody" });
  assert.equal((await client.conversations.delete(conversation.id)).deleted, true);
  await assert.rejects(client.conversations.retrieve(conversation.id), OpenAI.NotFoundError);
});

test("a WebSocket carries one response after the other, though none is stored", async () => {
  const socket = new ResponsesWS(client);
  const ended = [];
  for await (const message of socket.stream()) {
    if (message.type === "error") throw message.error;
    if (message.type === "open") socket.send({ type: "response.create", ...hello, store: false });
    if (message.type !== "message" || message.message.type !== "response.completed") continue;
    ended.push(message.message.response);
    if (ended.length === 2) break;
    const { id } = ended[0];
    socket.send({ type: "response.create", ...hello, input: "And?", store: false, previous_response_id: id });
  }
  socket.close();
  assert.deepEqual(ended.map((response) => response.output[0].content[0].text), ["Hello there", "Hello there"]);
  assert.equal(ended[1].previous_response_id, ended[0].id);
});

test("models are listed", async () => {
  const models = await all(client.models.list());
  assert.ok(models.some((model) => model.id === "text"));
});

test("a refused request names its fault", async () => {
  await assert.rejects(client.responses.create({ ...hello, temperature: 3 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.deepEqual([error.param, error.code, error.type], ["temperature", "decimal_above_max_value", "invalid_request_error"]);
    return true;
  });
});

test("a stream that fails raises what the model server said", async () => {
  const stream = await client.responses.create({ model: "error:400", input: "Hi", stream: true });
  await assert.rejects(all(stream), /It said no/);
});
