// Tool loops of the official openai-node with `runTools`, which calls the functions and sends the next request.
//
// BASE_URL=http://127.0.0.1:PORT/v1, API_KEY; MODEL if not gpt-5.5. The server runs on the scripted upstream, with an
// engine that has client tools. BASE_URL_RESTARTED is a second server, like the first one after a restart.
// NODE_MODULES names the folder that package.json was installed in, if it is not this one.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(
  process.env.NODE_MODULES ? pathToFileURL(`${process.env.NODE_MODULES}/x.js`) : import.meta.url,
);
const OpenAI = require("openai");
const { zodFunction } = require("openai/helpers/zod");
const { z } = require("zod");

const BASE_URL = process.env.BASE_URL;
if (!BASE_URL) throw new Error("BASE_URL is not set");
const MODEL = process.env.MODEL || "gpt-5.5";
const OPTIONS = { baseURL: BASE_URL, apiKey: process.env.API_KEY || "unused", maxRetries: 0, timeout: 60_000 };
const client = new OpenAI(OPTIONS);

// Scripted usage with unusual values, so that counts cannot match by accident.
const USAGE = { input: 10, cached: 4, output: 2, reasoning: 1 };
const ROME = { name: "getWeather", arguments: { city: "Rome" } };
const OSLO = { name: "getWeather", arguments: { city: "Oslo" } };
const TIME = { name: "getTime", arguments: { zone: "CET" } };
const DONE = { text: "It is warm.", usage: USAGE };
const calling = (...calls) => ({ calls, usage: USAGE });
const user = (...steps) => [{ role: "user", content: `@@${JSON.stringify(steps)}@@` }];

// The client's functions and the arguments of their calls.
function functions() {
  const called = [];
  const tools = [
    {
      type: "function",
      function: {
        name: "getWeather",
        description: "Returns the weather.",
        parse: JSON.parse,
        parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
        function: async ({ city }) => {
          called.push(`weather ${city}`);
          return `${city}: 25 C`;
        },
      },
    },
    zodFunction({
      name: "getTime",
      description: "Returns the time.",
      parameters: z.object({ zone: z.string() }),
      function: ({ zone }) => {
        called.push(`time ${zone}`);
        return { noon: true };
      },
    }),
  ];
  return { tools, called };
}

function runTools(steps, more = {}) {
  const { tools, called } = functions();
  const runner = client.chat.completions.runTools({ model: MODEL, messages: user(...steps), tools, ...more });
  return { runner, called };
}

// The declarations alone, for requests without a runner.
const OFFERED = functions().tools.map(({ type, function: { name, description, parameters, strict } }) => ({
  type,
  function: { name, description, parameters, ...(strict ? { strict } : {}) },
}));
const results = (message) => [
  message,
  ...message.tool_calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: `for ${call.function.name}` })),
];

class Skip extends Error {}

const checks = {
  async single_call() {
    const { runner, called } = runTools([calling(ROME), DONE]);
    assert.equal(await runner.finalContent(), "It is warm.");
    assert.deepEqual(called, ["weather Rome"]);
    assert.deepEqual(runner.messages.map((m) => m.role), ["user", "assistant", "tool", "assistant"]);
    const usage = await runner.totalUsage();
    assert.deepEqual([usage.prompt_tokens, usage.completion_tokens, usage.total_tokens], [20, 4, 24]);
    const reasons = runner.allChatCompletions().map((completion) => completion.choices[0].finish_reason);
    assert.deepEqual(reasons, ["tool_calls", "stop"]);
  },

  async parallel_calls() {
    const { runner, called } = runTools([calling(ROME, TIME, OSLO), DONE]);
    assert.equal(await runner.finalContent(), "It is warm.");
    assert.deepEqual(called.sort(), ["time CET", "weather Oslo", "weather Rome"]);
    const [first] = runner.allChatCompletions();
    const { tool_calls } = first.choices[0].message;
    assert.deepEqual(tool_calls.map((call) => [call.type, call.function.name, JSON.parse(call.function.arguments)]), [
      ["function", "getWeather", { city: "Rome" }],
      ["function", "getTime", { zone: "CET" }],
      ["function", "getWeather", { city: "Oslo" }],
    ]);
  },

  async one_call_at_a_time() {
    const { runner, called } = runTools([calling(ROME, OSLO), DONE], { parallel_tool_calls: false });
    assert.equal(await runner.finalContent(), "It is warm.");
    assert.deepEqual(called, ["weather Rome"]);
  },

  async several_rounds() {
    const { runner, called } = runTools([calling(ROME), calling(TIME, OSLO), calling(ROME), DONE]);
    assert.equal(await runner.finalContent(), "It is warm.");
    assert.equal(called.length, 4);
    assert.deepEqual([called[0], called[3]], ["weather Rome", "weather Rome"]);
  },

  async streamed() {
    const { runner, called } = runTools([{ text: "Let me look.", ...calling(ROME, TIME) }, calling(OSLO), DONE], {
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    const done = [];
    runner.on("content", (delta) => (text += delta));
    runner.on("tool_calls.function.arguments.done", (call) => done.push(call.name));
    assert.equal(await runner.finalContent(), "It is warm.");
    assert.equal(text, "Let me look.It is warm.");
    assert.deepEqual(called.sort(), ["time CET", "weather Oslo", "weather Rome"]);
    assert.deepEqual(done, ["getWeather", "getTime", "getWeather"]);
    const usage = await runner.totalUsage();
    assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [30, 6]);
  },

  async upstream_input_has_calls_and_results() {
    for (const more of [{}, { stream: true }]) {
      const step = { reasoning: "hm", text: "Wait.", ...calling(ROME, TIME) };
      const { runner } = runTools([step, { echo: true }], more);
      const sent = JSON.parse(await runner.finalContent());
      const calls = Array(2).fill("function_call");
      const outputs = Array(2).fill("function_call_output");
      assert.deepEqual(sent.items.slice(-7), ["user", "reasoning", "assistant", ...calls, ...outputs]);
      assert.deepEqual(sent.tools.filter((name) => /^get[A-Z]/.test(name)), ["getWeather", "getTime"]);
    }
  },

  async streamed_deltas_by_index() {
    const calls = [];
    const stream = await client.chat.completions.create({
      model: MODEL,
      messages: user(calling(ROME, TIME)),
      tools: OFFERED,
      stream: true,
    });
    for await (const chunk of stream) {
      for (const delta of chunk.choices[0]?.delta.tool_calls ?? []) {
        const call = (calls[delta.index] ??= { id: "", name: "", arguments: "" });
        call.id += delta.id ?? "";
        call.name += delta.function?.name ?? "";
        call.arguments += delta.function?.arguments ?? "";
      }
    }
    assert.deepEqual(calls.map((call) => [call.name, call.arguments]), [
      ["getWeather", '{"city":"Rome"}'],
      ["getTime", '{"zone":"CET"}'],
    ]);
    assert.notEqual(calls[0].id, calls[1].id);
  },

  async stream_helper() {
    const params = { model: MODEL, messages: user(calling(ROME, TIME)), tools: OFFERED };
    const completion = await client.chat.completions.stream(params).finalChatCompletion();
    const [{ finish_reason, message }] = completion.choices;
    assert.equal(finish_reason, "tool_calls");
    assert.ok(!message.content, message.content);
    assert.deepEqual(message.tool_calls.map((call) => call.function.name), ["getWeather", "getTime"]);
  },

  async a_named_function() {
    const tool_choice = { type: "function", function: { name: "getTime" } };
    const { runner, called } = runTools([calling(TIME), DONE], { tool_choice });
    // A runner stops after a call that tool_choice named.
    await runner.done();
    assert.deepEqual(called, ["time CET"]);
  },

  async results_after_a_restart() {
    if (!process.env.BASE_URL_RESTARTED) throw new Skip("BASE_URL_RESTARTED is not set");
    const restarted = new OpenAI({ ...OPTIONS, baseURL: process.env.BASE_URL_RESTARTED });
    const step = { reasoning: "forgotten", text: "Let me look.", ...calling(ROME, TIME) };
    const params = { model: MODEL, messages: user(step, { echo: true }), tools: OFFERED };
    for (const complete of [
      (api, body) => api.chat.completions.create(body),
      (api, body) => api.chat.completions.stream(body).finalChatCompletion(),
    ]) {
      const first = await complete(client, params);
      const messages = [...params.messages, ...results(first.choices[0].message)];
      const last = await complete(restarted, { ...params, messages });
      const sent = JSON.parse(last.choices[0].message.content);
      const calls = Array(2).fill("function_call");
      const outputs = Array(2).fill("function_call_output");
      assert.deepEqual(sent.items.slice(-6), ["user", "assistant", ...calls, ...outputs]);
      assert.ok(!sent.items.includes("reasoning"));
    }
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
    const line = caught?.stack?.match(/tools_node\.mjs:(\d+)/)?.[1] ?? "?";
    const reason = String(caught?.message ?? caught).replace(/\s+/g, " ").slice(0, 600);
    console.log(`FAIL ${name}: ${caught?.constructor?.name}: ${reason} (line ${line})`);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
