// The AI SDK with both of its providers: an answer, a stream, a tool loop, an object and a stream of partial objects.
// BASE_URL=http://127.0.0.1:PORT/v1, API_KEY, NODE_MODULES; MODEL if not gpt-5.5.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const modules = createRequire(pathToFileURL(`${process.env.NODE_MODULES ?? import.meta.dirname}/package.json`));
const load = async (name) => import(pathToFileURL(modules.resolve(name)));
const { generateText, streamText, tool, stepCountIs, Output } = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { createOpenAI } = await load("@ai-sdk/openai");
const { z } = await load("zod");

const { BASE_URL: baseURL, API_KEY: apiKey = "unused", MODEL: name = "gpt-5.5" } = process.env;
const models = {
  openai_compatible: createOpenAICompatible({
    name: "codex", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true,
  }).chatModel(name),
  openai: createOpenAI({ baseURL, apiKey }).chat(name),
};
const directive = (...steps) => `@@${JSON.stringify(steps)}@@`;
// The SDK asks for strict schemas, which have no optional properties.
const schema = z.object({ name: z.string(), age: z.number().nullable(), level: z.union([z.literal(1), z.literal(2)]) });
const weather = tool({
  description: "Returns the weather.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `${city}: 25 C`,
});
const same = (got, wanted) => {
  const [left, right] = [JSON.stringify(got), JSON.stringify(wanted)];
  if (left !== right) throw new Error(`got ${left}, wanted ${right}`);
};

const checks = {
  async chat(model) {
    const got = await generateText({ model, maxRetries: 0, prompt: directive({ text: "one two", usage: { input: 10, cached: 4, output: 2, reasoning: 1 } }) });
    same([got.text, got.usage.inputTokens, got.finishReason], ["one two", 10, "stop"]);
  },
  async stream(model) {
    const pieces = [];
    const got = streamText({ model, maxRetries: 0, prompt: directive({ text: "one two three", delay_ms: 100 }) });
    for await (const piece of got.textStream) pieces.push(piece);
    same(pieces, ["one ", "two ", "three"]);
  },
  async tool_loop(model) {
    const prompt = directive({ calls: [{ name: "weather", arguments: { city: "Rome" } }] }, { text: "It is warm." });
    const got = await generateText({ model, maxRetries: 0, prompt, tools: { weather }, stopWhen: stepCountIs(3) });
    same([got.text, got.steps.length, got.steps[0].toolResults[0].output], ["It is warm.", 2, "Rome: 25 C"]);
  },
  async object(model) {
    const got = await generateText({ model, maxRetries: 0, prompt: "Who?", output: Output.object({ schema }) });
    schema.parse(got.output);
  },
  // In the profile `chat` no message can precede the answer, so that the object grows with the stream.
  async partial_objects(_, provider) {
    const model = provider === "openai" ? createOpenAI({ baseURL, apiKey }).chat(`${name}:chat`)
      : createOpenAICompatible({ name: "codex", baseURL, apiKey, supportsStructuredOutputs: true }).chatModel(`${name}:chat`);
    const prompt = directive({ pieces: ['{"name": "An', 'n", "le', 'vel": 2}'], delay_ms: 100 });
    const seen = [];
    const got = streamText({ model, maxRetries: 0, prompt, output: Output.object({ schema: schema.omit({ age: true }) }) });
    for await (const partial of got.partialOutputStream) seen.push(partial);
    if (seen.length < 2) throw new Error(`one object at the end: ${JSON.stringify(seen)}`);
    same(seen.at(-1), { name: "Ann", level: 2 });
  },
};

let [passed, failed] = [0, 0];
setTimeout(() => process.exit(1), 300_000).unref();
for (const [provider, model] of Object.entries(models)) {
  for (const [check, run] of Object.entries(checks)) {
    try {
      await run(model, provider);
      passed += 1;
      console.log(`ok ai_sdk_${provider}_${check}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ai_sdk_${provider}_${check}: ${String(error?.message ?? error).replaceAll(/\s+/g, " ").slice(0, 600)}`);
    }
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 || passed === 0 ? 1 : 0);
