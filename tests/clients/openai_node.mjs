// The official openai-node as a client of the HTTP door.
//
// BASE_URL=http://127.0.0.1:PORT/v1, API_KEY; MODEL if not gpt-5.5. The server runs on the scripted upstream.
// NODE_MODULES names the folder that package.json was installed in, if it is not this one.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { deflateSync } from "node:zlib";

const require = createRequire(
  process.env.NODE_MODULES ? pathToFileURL(`${process.env.NODE_MODULES}/x.js`) : import.meta.url,
);
const OpenAI = require("openai");
const { zodResponseFormat } = require("openai/helpers/zod");
const { z } = require("zod");

const BASE_URL = process.env.BASE_URL;
if (!BASE_URL) throw new Error("BASE_URL is not set");
const API_KEY = process.env.API_KEY || "unused";
const MODEL = process.env.MODEL || "gpt-5.5";
const OPTIONS = { baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0, timeout: 60_000 };
const client = new OpenAI(OPTIONS);

// Scripted usage with unusual values, so that counts cannot match by accident.
const USAGE = { input: 10, cached: 4, output: 2, reasoning: 1 };
const HELLO = { text: "hello world", usage: USAGE };
// One message at once, then one that takes longer than any check waits.
const ENDLESS = { messages: [{ text: "the beginning" }, { tokens: 50_000, delay_ms: 20 }] };
const error = (message, type, code) => ({ error: { message, type, code } });
const RATE_LIMIT = { status: 429, body: error("Rate limit reached", "requests", "rate_limit_exceeded") };
const NO_MODEL = {
  status: 400,
  body: error("The requested model 'x' does not exist.", "invalid_request_error", "model_not_found"),
};
const REFUSED = { status: 400, body: error("the upstream refuses this", "invalid_request_error", "bad_thing") };
const TOO_LONG = { failed: { code: "context_length_exceeded", message: "Your input exceeds the context window" } };
// Fails without a retry, after a message that the client has received.
const BREAKS_OFF = {
  messages: [{ text: "part one" }, { text: "lost" }],
  failed: { code: "invalid_prompt", message: "flagged" },
};

const directive = (...steps) => `@@${JSON.stringify(steps)}@@`;
const user = (...steps) => [{ role: "user", content: directive(...steps) }];
const create = (step, more = {}, options = {}) =>
  client.chat.completions.create({ model: MODEL, messages: user(step), ...more }, options);
const contentOf = (completion) => completion.choices[0].message.content;
const all = async (chunks) => {
  const list = [];
  for await (const chunk of await chunks) list.push(chunk);
  return list;
};
const textOf = (chunks) => chunks.map((c) => c.choices[0]?.delta.content ?? "").join("");

async function raises(kind, call) {
  let result;
  try {
    result = await call();
  } catch (caught) {
    assert.ok(caught instanceof kind, `wanted ${kind.name}, got ${caught?.constructor?.name}: ${caught?.message}`);
    return caught;
  }
  assert.fail(`wanted ${kind.name}, got ${JSON.stringify(result)?.slice(0, 200)}`);
}

async function runningTurns() {
  const response = await fetch(`${BASE_URL.replace(/\/v1\/?$/, "")}/healthz`);
  const { running } = await response.json();
  assert.equal(typeof running, "number", "/healthz has no `running`");
  return running;
}

async function waitUntilIdle() {
  const end = Date.now() + 20_000;
  while ((await runningTurns()) !== 0) {
    assert.ok(Date.now() < end, "not within 20 s: no turn runs any more");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function sameUsage(usage, times = 1) {
  assert.equal(usage.prompt_tokens, USAGE.input * times);
  assert.equal(usage.completion_tokens, USAGE.output * times);
  assert.equal(usage.total_tokens, (USAGE.input + USAGE.output) * times);
  assert.equal(usage.prompt_tokens_details.cached_tokens, USAGE.cached * times);
  assert.equal(usage.completion_tokens_details.reasoning_tokens, USAGE.reasoning * times);
}

// A red square, 8 by 8.
function png() {
  const crc = (bytes) => {
    let sum = 0xffffffff;
    for (const byte of bytes) {
      sum ^= byte;
      for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
    }
    return (sum ^ 0xffffffff) >>> 0;
  };
  const chunk = (kind, data) => {
    const body = Buffer.concat([Buffer.from(kind), data]);
    const size = Buffer.alloc(4);
    size.writeUInt32BE(data.length);
    const check = Buffer.alloc(4);
    check.writeUInt32BE(crc(body));
    return Buffer.concat([size, body, check]);
  };
  const header = Buffer.from([0, 0, 0, 8, 0, 0, 0, 8, 8, 2, 0, 0, 0]);
  const row = Buffer.from([0, ...Array(8).fill([255, 0, 0]).flat()]);
  const pixels = deflateSync(Buffer.concat(Array(8).fill(row)));
  const mark = Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]);
  return Buffer.concat([mark, chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", Buffer.alloc(0))]);
}

class Skip extends Error {}
const Entry = z.object({ name: z.string(), day: z.number().int(), tags: z.array(z.string()) });

const checks = {
  async chat() {
    const got = await create(HELLO);
    assert.equal(contentOf(got), "hello world");
    assert.deepEqual([got.object, got.model, got.choices.length], ["chat.completion", MODEL, 1]);
    assert.match(got.id, /^chatcmpl-/);
    assert.ok(got.system_fingerprint, "no system_fingerprint");
    const { index, finish_reason, logprobs, message } = got.choices[0];
    assert.deepEqual([index, finish_reason, logprobs], [0, "stop", null]);
    assert.deepEqual([message.role, message.refusal], ["assistant", null]);
    sameUsage(got.usage);
  },

  async conversation_with_wide_characters() {
    const text = "Grüße, 漢字 and 🦀";
    const got = await client.chat.completions.create({
      model: MODEL,
      messages: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "first" },
        { role: "assistant", content: "an answer" },
        { role: "user", content: [{ type: "text", text }, { type: "text", text: directive({ echo: true }) }] },
      ],
    });
    assert.ok(JSON.parse(contentOf(got)).user.includes(text), contentOf(got));
  },

  async stream() {
    const chunks = await all(create(HELLO, { stream: true }));
    assert.equal(textOf(chunks), "hello world");
    assert.deepEqual([...new Set(chunks.map((c) => c.object))], ["chat.completion.chunk"]);
    assert.equal(new Set(chunks.map((c) => c.id)).size, 1, "different ids");
    assert.equal(chunks[0].choices[0].delta.role, "assistant");
    const reasons = chunks.map((c) => c.choices[0].finish_reason);
    assert.equal(reasons.at(-1), "stop");
    assert.deepEqual(reasons.filter(Boolean), ["stop"]);
    assert.deepEqual(chunks.filter((c) => c.usage), [], "usage that was not requested");
  },

  async notices_are_compatible_with_the_sdk() {
    // Codex warns about an unknown model.
    const model = "an-unknown-model";
    const got = await create(HELLO, { model });
    assert.equal(contentOf(got), "hello world");
    assert.ok(got.codex.notices.some((n) => n.kind === "warning" && n.message.includes(model)), JSON.stringify(got));
    const chunks = await all(create(HELLO, { model, stream: true }));
    assert.equal(textOf(chunks), "hello world");
    const headers = { "x-codex-notices": "1" };
    const raw = await create(HELLO, { model, stream: true }, { headers }).asResponse();
    assert.match(await raw.text(), /^: notice \{"kind":"warning"/m);
  },

  async stream_with_usage() {
    const chunks = await all(create(HELLO, { stream: true, stream_options: { include_usage: true } }));
    assert.equal(textOf(chunks), "hello world");
    assert.deepEqual(chunks.at(-1).choices, []);
    sameUsage(chunks.at(-1).usage);
    assert.deepEqual(chunks.slice(0, -1).filter((c) => c.usage), [], "usage in other chunks");
  },

  async stream_helper() {
    const runner = client.chat.completions.stream({ model: MODEL, messages: user(HELLO) });
    let text = "";
    runner.on("content", (delta) => (text += delta));
    const final = await runner.finalChatCompletion();
    assert.deepEqual([text, contentOf(final), final.choices[0].finish_reason], ["hello world", "hello world", "stop"]);
  },

  async stream_is_equal_to_unary() {
    const step = { messages: [{ text: "first part" }, { text: "second part" }] };
    assert.equal(contentOf(await create(step)), "first part\n\nsecond part");
    assert.equal(textOf(await all(create(step, { stream: true }))), "first part\n\nsecond part");
  },

  async vision() {
    const url = `data:image/png;base64,${png().toString("base64")}`;
    const content = [
      { type: "text", text: directive({ echo: true }) },
      { type: "image_url", image_url: { url, detail: "low" } },
    ];
    const got = await client.chat.completions.create({ model: MODEL, messages: [{ role: "user", content }] });
    assert.equal(JSON.parse(contentOf(got)).images, 1);
  },

  async vision_refuses_remote_images() {
    const content = [{ type: "image_url", image_url: { url: "https://example.com/a.png" } }];
    const messages = [{ role: "user", content }];
    const caught = await raises(OpenAI.BadRequestError, () =>
      client.chat.completions.create({ model: MODEL, messages }),
    );
    assert.match(caught.param ?? "", /image_url/);
  },

  async parse() {
    const response_format = zodResponseFormat(Entry, "entry");
    const parse = (step) => client.chat.completions.parse({ model: MODEL, messages: user(step), response_format });
    Entry.parse((await parse({ schema_answer: true })).choices[0].message.parsed);
    const entry = { name: "a", day: 2, tags: ["b"] };
    const got = await parse({ text: JSON.stringify(entry) });
    assert.deepEqual(got.choices[0].message.parsed, entry);
    const echo = await create({ echo: true }, { response_format });
    assert.equal(JSON.parse(contentOf(echo)).format.schema.properties.day.type, "integer");
  },

  async json_object() {
    const got = await create({ text: '{"a": 1}' }, { response_format: { type: "json_object" } });
    assert.deepEqual(JSON.parse(contentOf(got)), { a: 1 });
  },

  async reasoning_effort_reaches_the_upstream() {
    assert.equal(JSON.parse(contentOf(await create({ echo: true }, { reasoning_effort: "low" }))).effort, "low");
  },

  async several_choices() {
    const got = await create(HELLO, { n: 2 });
    assert.deepEqual(
      got.choices.map((c) => [c.index, c.message.content, c.finish_reason]),
      [0, 1].map((i) => [i, "hello world", "stop"]),
    );
    sameUsage(got.usage, 2);
  },

  async stop() {
    for (const stop of ["STOP", ["never", "STOP"]]) {
      const { message, finish_reason } = (await create({ text: "one two STOP three" }, { stop })).choices[0];
      assert.deepEqual([message.content, finish_reason], ["one two ", "stop"]);
    }
  },

  async max_tokens() {
    for (const name of ["max_tokens", "max_completion_tokens"]) {
      const { message, finish_reason } = (await create({ text: "one two three four five" }, { [name]: 3 })).choices[0];
      assert.deepEqual([message.content, finish_reason], ["one two three", "length"], name);
    }
  },

  async headers() {
    const { response, request_id } = await create(
      HELLO,
      { temperature: 0.5, seed: 7 },
      { headers: { "X-Request-Id": "from-the-client-2" } },
    ).withResponse();
    assert.equal(request_id, "from-the-client-2");
    const ignored = (response.headers.get("x-codex-ignored-params") ?? "").split(",").map((word) => word.trim());
    assert.deepEqual(ignored.sort(), ["seed", "temperature"]);
    const streamed = await create(HELLO, { stream: true }).asResponse();
    assert.match(streamed.headers.get("content-type"), /^text\/event-stream/);
    const lines = (await streamed.text()).split("\n").filter((line) => line && !line.startsWith(":"));
    assert.equal(lines.at(-1), "data: [DONE]");
    assert.deepEqual(lines.filter((line) => !line.startsWith("data: ")), []);
  },

  async models() {
    const ids = (await all(client.models.list())).map((model) => model.id);
    assert.ok(ids.length > 0, "no models");
    for (const id of ids) assert.equal((await client.models.retrieve(id)).id, id);
    const caught = await raises(OpenAI.NotFoundError, () => client.models.retrieve("no-such-model"));
    assert.equal(caught.code, "model_not_found");
  },

  async authentication_error() {
    if (API_KEY === "unused") throw new Skip("the server has no token");
    const unauthorized = new OpenAI({ ...OPTIONS, apiKey: `${API_KEY}x` });
    const caught = await raises(OpenAI.AuthenticationError, () => unauthorized.models.list());
    assert.equal(caught.code, "invalid_api_key");
  },

  async bad_request_error() {
    const caught = await raises(OpenAI.BadRequestError, () =>
      client.chat.completions.create({ model: MODEL, messages: [] }),
    );
    assert.deepEqual([caught.type, caught.param], ["invalid_request_error", "messages"]);
    assert.ok(caught.requestID, "no request id");
    const logprobs = await raises(OpenAI.BadRequestError, () => create(HELLO, { logprobs: true }));
    assert.equal(logprobs.param, "logprobs");
    assert.match((await raises(OpenAI.BadRequestError, () => create(REFUSED))).message, /the upstream refuses this/);
    const long = await raises(OpenAI.BadRequestError, () => create(TOO_LONG));
    assert.equal(long.code, "context_length_exceeded");
  },

  async not_found_error() {
    const caught = await raises(OpenAI.NotFoundError, () => create(NO_MODEL));
    assert.equal(caught.code, "model_not_found");
  },

  async rate_limit_error() {
    const caught = await raises(OpenAI.RateLimitError, () => create(RATE_LIMIT));
    assert.equal(caught.code, "rate_limit_exceeded");
  },

  async internal_server_error() {
    const caught = await raises(OpenAI.InternalServerError, () => create({ status: 500 }));
    assert.deepEqual([caught.status, caught.type], [503, "server_error"]);
    assert.equal(caught.headers.get("x-should-retry"), null);
    assert.equal(caught.headers.get("retry-after"), "5");
  },

  async errors_end_a_stream() {
    const caught = await raises(OpenAI.APIError, () => all(create(RATE_LIMIT, { stream: true })));
    assert.equal(caught.code, "rate_limit_exceeded");
  },

  async errors_in_the_middle_of_a_stream() {
    const chunks = [];
    const caught = await raises(OpenAI.APIError, async () => {
      for await (const chunk of await create(BREAKS_OFF, { stream: true })) chunks.push(chunk);
    });
    assert.match(textOf(chunks), /^part one/);
    assert.deepEqual(chunks.filter((c) => c.choices[0]?.finish_reason), []);
    assert.match(caught.message, /flagged/);
  },

  async cancel_of_a_stream() {
    const stream = await create(ENDLESS, { stream: true });
    let text = "";
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      if (text === "the beginning") {
        assert.ok((await runningTurns()) >= 1, "the turn is not counted as running");
        stream.controller.abort();
      }
    }
    assert.equal(text, "the beginning");
    await waitUntilIdle();
    assert.equal(contentOf(await create(HELLO)), "hello world", "the next turn");
  },

  async cancel_by_a_signal() {
    const abort = new AbortController();
    const call = create(ENDLESS, {}, { signal: abort.signal });
    const end = Date.now() + 20_000;
    while ((await runningTurns()) === 0) assert.ok(Date.now() < end, "the turn does not start");
    abort.abort();
    await raises(OpenAI.APIUserAbortError, () => call);
    await waitUntilIdle();
  },

  async response() {
    const got = await client.responses.create({ model: MODEL, input: directive(HELLO) });
    assert.deepEqual([got.output_text, got.status, got.object], ["hello world", "completed", "response"]);
    assert.deepEqual([got.usage.input_tokens, got.usage.output_tokens], [USAGE.input, USAGE.output]);
  },

  async responseStreamedByTheStrictAccumulator() {
    const step = { messages: [{ text: "first part" }, { text: "second part" }], usage: USAGE };
    const stream = client.responses.stream({ model: MODEL, input: user(step) });
    const kinds = [];
    for await (const event of stream) kinds.push(event.type);
    const final = await stream.finalResponse();
    assert.deepEqual(kinds.slice(0, 2), ["response.created", "response.in_progress"]);
    assert.equal(kinds.at(-1), "response.completed");
    assert.deepEqual(final.output.map((item) => item.content[0].text), ["first part", "second part"]);
  },

  async responseThatBreaksOff() {
    const stream = await client.responses.create({ model: MODEL, input: user(BREAKS_OFF), stream: true });
    await raises(OpenAI.APIError, () => all(stream));
  },
};

const filters = process.argv.slice(2);
const chosen = Object.entries(checks).filter(([name]) => !filters.length || filters.some((filter) => name.includes(filter)));
if (!chosen.length) throw new Error("no check ran");
// Limits the whole run, so that a hanging check ends it.
setTimeout(() => {
  console.log("FAIL: not finished within 300 s");
  process.exit(1);
}, 300_000).unref();
let passed = 0;
let failed = 0;
for (const [name, run] of chosen) {
  try {
    await run();
    passed += 1;
    console.log(`ok ${name}`);
  } catch (caught) {
    if (caught instanceof Skip) {
      console.log(`skip ${name}: ${caught.message}`);
      continue;
    }
    failed += 1;
    const line = caught?.stack?.match(/openai_node\.mjs:(\d+)/)?.[1] ?? "?";
    const reason = String(caught?.message ?? caught).replace(/\s+/g, " ").slice(0, 600);
    console.log(`FAIL ${name}: ${caught?.constructor?.name}: ${reason} (line ${line})`);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
