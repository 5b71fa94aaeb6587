// The Vercel AI SDK's OpenAI client: answers, streams, tools with a loop, objects, errors.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const [url, key] = process.argv.slice(2);
const model = createOpenAI({ baseURL: url, apiKey: key }).chat("cascade");
const ACCEPTED = "What is AI?";
const REJECTED = "Compare SQL and NoSQL databases";
const DRAFT = "Hmm, I don't know";

const answer = await generateText({ model, prompt: ACCEPTED, system: "Be brief.", maxRetries: 0 });
assert.match(answer.text, /^AI/);
assert.ok(answer.usage.totalTokens > 0);
assert.equal(answer.response.headers["x-cascade-outcome"], "accepted");
assert.ok(answer.response.headers["x-request-id"]);

for (const prompt of [ACCEPTED, REJECTED]) {
  const whole = await generateText({ model, prompt, maxRetries: 0 });
  const stream = streamText({ model, prompt, maxRetries: 0 });
  let said = "";
  for await (const piece of stream.textStream) said += piece;
  assert.equal(said, whole.text);
  assert.ok(!said.includes(DRAFT));
  assert.equal((await stream.usage).totalTokens, whole.usage.totalTokens);
  assert.equal(await stream.finishReason, "stop");
}

const tools = {
  get_weather: tool({
    description: "The weather of a city",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `21 degrees in ${city}`,
  }),
};
const asked = { model, tools, prompt: "What is the weather in Paris?", stopWhen: stepCountIs(2), maxRetries: 0 };
assert.match((await generateText(asked)).text, /21 degrees in Paris/);
const loop = streamText(asked);
await loop.consumeStream();
assert.match(await loop.text, /21 degrees in Paris/);
assert.equal((await loop.steps).length, 2);

const schema = z.object({ title: z.string(), pages: z.number() });
const named = { model, schema, prompt: "Name a book by Ada", maxRetries: 0 };
assert.deepEqual((await generateObject(named)).object, { title: "Ada", pages: 1 });
const growing = streamObject(named);
let last;
for await (const part of growing.partialObjectStream) last = part;
assert.deepEqual(last, { title: "Ada", pages: 1 });
assert.deepEqual(await growing.object, last);

await assert.rejects(
  generateText({ model, prompt: "[[both:500]] hi", maxRetries: 0 }),
  (error) => error.statusCode === 502 && /gave no answer/.test(error.message),
);
let told;
const failing = streamText({ model, prompt: "[[both:500]] hi", maxRetries: 0, onError: ({ error }) => { told = error; } });
await failing.consumeStream();
assert.match(JSON.stringify(told) + String(told?.message), /gave no answer/);
