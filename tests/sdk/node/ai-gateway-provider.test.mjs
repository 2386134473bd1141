// Cloudflare's own provider for the Vercel AI SDK, unchanged, through the universal endpoint.
// FAKE_URL and GATEWAY_URL say where fakes and gateway are; `../stack.py steps` starts them.

import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { generateText, streamText } from "ai";
import { AiGatewayDoesNotExist, createAiGateway } from "ai-gateway-provider";
import { createAnthropic } from "ai-gateway-provider/providers/anthropic";
import { createOpenAI } from "ai-gateway-provider/providers/openai";
import { createUnified, unified } from "ai-gateway-provider/providers/unified";

import { providerHeaders, requestOf, takeRecords } from "./outcome.mjs";

const { FAKE_URL, GATEWAY_URL } = process.env;
const cloudflare = "https://gateway.ai.cloudflare.com";
const apiKey = "sk-test-key-of-the-application";
const chatText = "A lighthouse keeps one promise: it is there when you look. 🗼";
const claudeText = "The harbour light is green tonight.";

// The package knows one address only. Where that leads is all that is changed.
const { fetch } = globalThis;
globalThis.fetch = (url, init) =>
  fetch(String(url).replace(cloudflare, new URL(GATEWAY_URL).origin), init);

const openai = createOpenAI({ apiKey });
const anthropic = createAnthropic({ apiKey });
const direct = {
  openai: createOpenAI({ apiKey, baseURL: `${FAKE_URL}/openai/v1` }),
  anthropic: createAnthropic({ apiKey, baseURL: `${FAKE_URL}/anthropic/v1` }),
};

const nano = openai.chat("gpt-4.1-nano");
const claude = anthropic("claude-haiku-4-5");
const down = openai.chat("error-500");

const through = (models, options, gateway = "default") =>
  createAiGateway({ accountId: "default", gateway, options })(models);

let question; // another one in each test: none is answered from another's cache
let questions = 0;
beforeEach(async () => {
  question = `What does the sea say, in line ${(questions += 1)}? Ça va 🌊`;
  await takeRecords(FAKE_URL);
});

// The SDK itself never tries again: what is tried again, the gateway does.
const asking = (model) => ({ model, prompt: question, maxRetries: 0 });

async function generate(model) {
  const { text, content, finishReason, usage, response } = await generateText(asking(model));
  const { headers, id, modelId, messages } = response;
  return { text, headers, result: { content, finishReason, usage, id, modelId, messages } };
}

/** The parts of the stream, without times and what was asked. */
async function stream(model) {
  const result = streamText({ ...asking(model), onError: () => {} });
  let [text, headers] = [""];
  const parts = [];
  for await (const { request, response, performance, ...part } of result.fullStream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta") text += part.text;
    headers ??= response?.headers;
    parts.push(part);
  }
  return { text, headers, result: parts };
}

async function failure(model, call = generate) {
  const error = await call(model).then(() => assert.fail("it succeeded"), (raised) => raised);
  const { name, message, statusCode, responseBody, data, isRetryable } = error;
  return { name, message, statusCode, responseBody, data, isRetryable };
}

/** What the fakes were asked since the last time: models, and keys by header. */
async function asked() {
  const records = await takeRecords(FAKE_URL);
  return records.map(({ headers, body_base64 }) => {
    const { authorization, "x-api-key": key = authorization } = Object.fromEntries(headers);
    return { key, model: JSON.parse(Buffer.from(body_base64, "base64")).model };
  });
}
const askedModels = async () => (await asked()).map(({ model }) => model);

/** The one request, without the headers that Node's fetch adds to each. */
async function request() {
  const { headers, ...rest } = requestOf({ records: await takeRecords(FAKE_URL) });
  const { "accept-language": language, "sec-fetch-mode": mode, ...kept } = headers;
  return { ...rest, headers: kept };
}

describe("one model: the same as directly, for the application and for the provider", () => {
  for (const [call, slug, kind, model] of [
    [generate, "openai", "chat", "gpt-4.1-nano"],
    [generate, "openai", "chat", "gpt-gzip"],
    [generate, "openai", "responses", "gpt-4.1-nano"],
    [generate, "anthropic", "messages", "claude-haiku-4-5"],
    [stream, "openai", "chat", "gpt-4.1-nano"],
    [stream, "openai", "responses", "gpt-4.1-nano"],
    [stream, "anthropic", "messages", "claude-sonnet-5"],
  ]) {
    test(`${call.name} ${slug} ${kind} ${model}`, async () => {
      const expected = await call(direct[slug][kind](model));
      const expectedRequest = await request();
      const { result, headers } = await call(through({ openai, anthropic }[slug][kind](model)));
      assert.deepEqual(result, expected.result);
      assert.deepEqual(await request(), expectedRequest);
      assert.deepEqual(providerHeaders(headers), providerHeaders(expected.headers));
      assert.deepEqual([headers["cf-aig-step"], headers["cf-aig-provider"]], ["0", slug]);
    });
  }
});

describe("a fallback: the second model's answer, parsed by its own provider", () => {
  for (const failing of ["error-401", "error-429", "error-500", "a-model-nobody-knows"]) {
    for (const [first, second, text] of [
      [openai.chat(failing), claude, claudeText],
      [anthropic(failing), nano, chatText],
    ]) {
      test(`${first.provider} ${failing}`, async () => {
        const answer = await generate(through([first, second]));
        assert.deepEqual([answer.text, answer.headers["cf-aig-step"]], [text, "1"]);
        assert.deepEqual(await askedModels(), [failing, second.modelId]);
      });
    }
  }

  test("streamed, as the second would directly", async () => {
    const expected = await stream(direct.anthropic("claude-sonnet-5"));
    const { result, text } = await stream(through([down, anthropic("claude-sonnet-5")]));
    assert.equal(text, "24 nautical miles ⛵");
    assert.deepEqual(result, expected.result);
  });

  test("of three, the third; nobody sees another's key", async () => {
    const third = createOpenAI({ apiKey: "sk-another" }).chat("gpt-4.1-nano");
    const { text, headers } = await generate(through([down, anthropic("error-429"), third]));
    assert.deepEqual([text, headers["cf-aig-step"]], [chatText, "2"]);
    const keys = (await asked()).map(({ key }) => key);
    assert.deepEqual(keys, [`Bearer ${apiKey}`, apiKey, "Bearer sk-another"]);
  });
});

describe("an error is raised", () => {
  for (const [last, directly] of [
    [openai.chat("error-500"), direct.openai.chat("error-500")],
    [anthropic("error-429"), direct.anthropic("error-429")],
  ]) {
    test(`the last step's, as directly: ${last.provider} ${last.modelId}`, async () => {
      const expected = await failure(directly);
      assert.deepEqual(await failure(through(last)), expected);
      assert.deepEqual(await failure(through([anthropic("error-401"), last])), expected);
    });
  }

  test("when a stream breaks off", async () => {
    const { message } = await failure(through(openai.chat("gpt-cut")), stream);
    assert.equal(message, "The provider's answer broke off");
  });

  test("of the package's own class where the gateway does not exist", async () => {
    await assert.rejects(generate(through(nano, {}, "nowhere")), AiGatewayDoesNotExist);
    assert.deepEqual(await askedModels(), []);
  });
});

describe("options reach the gateway, and only the gateway", () => {
  const status = ({ headers }) => headers["cf-aig-cache-status"];

  test("cacheTtl, skipCache", async () => {
    for (const [skipCache, expected] of [[false, "MISS"], [false, "HIT"], [true, "MISS"]]) {
      const answer = await generate(through(nano, { cacheTtl: 60, skipCache }));
      assert.deepEqual([answer.text, status(answer)], [chatText, expected]);
    }
    assert.equal((await asked()).length, 2);
  });

  test("cacheTtl of a fallback: the hit is of the second step too", async () => {
    for (const expected of ["MISS", "HIT"]) {
      const answer = await generate(through([down, claude], { cacheTtl: 60 }));
      assert.deepEqual([answer.text, status(answer)], [claudeText, expected]);
      assert.equal(answer.headers["cf-aig-step"], "1");
    }
    assert.deepEqual(await askedModels(), ["error-500", "claude-haiku-4-5", "error-500"]);
  });

  test("cacheKey, which stands for the question", async () => {
    for (const expected of ["MISS", "HIT"]) {
      question += " Are you sure?";
      assert.equal(status(await generate(through(nano, { cacheKey: "sea" }))), expected);
    }
  });

  test("retries", async () => {
    const retries = { maxAttempts: 2, retryDelayMs: 1, backoff: "constant" };
    const { text } = await generate(through(openai.chat("gpt-second-try"), { retries }));
    assert.deepEqual([text, (await asked()).length], [chatText, 2]);
    const { statusCode } = await failure(through(openai.chat("error-503")));
    assert.deepEqual([statusCode, (await asked()).length], [503, 1]);
  });

  test("requestTimeoutMs, after which the next model is asked", async () => {
    const model = through([openai.chat("gpt-slow"), claude], { requestTimeoutMs: 1000 });
    assert.equal((await generate(model)).text, claudeText);
    assert.deepEqual(await askedModels(), ["gpt-slow", "claude-haiku-4-5"]);
  });

  test("all others: the provider's request is as without them", async () => {
    await generate(direct.openai.chat("gpt-4.1-nano"));
    const expected = await request();
    const options = { eventId: "e-1", collectLog: false, zdr: true, metadata: { night: 7 } };
    const { headers } = await generate(through(nano, options));
    assert.equal(headers["cf-aig-event-id"], "e-1");
    assert.deepEqual(await request(), expected);
  });

  test("byokAlias, and no key at all: stored keys pay", async () => {
    const models = [createOpenAI().chat("error-500"), createAnthropic()("claude-haiku-4-5")];
    for (const [alias, options] of [["default", {}], ["other", { byokAlias: "other" }]]) {
      assert.equal((await generate(through(models, options))).text, claudeText);
      const keys = (await asked()).map(({ key }) => key);
      assert.deepEqual(keys, [`Bearer sk-stored-openai-${alias}`, `sk-stored-anthropic-${alias}`]);
    }
  });
});

describe("the unified API", () => {
  test("provider/model, with the application's key and with a stored one", async () => {
    for (const [provider, key] of [
      [createUnified({ apiKey }), `Bearer ${apiKey}`],
      [unified, "Bearer sk-stored-openai-default"],
    ]) {
      assert.equal((await generate(through(provider("openai/gpt-4.1-nano")))).text, chatText);
      assert.deepEqual(await asked(), [{ key, model: "gpt-4.1-nano" }]);
    }
  });

  for (const before of [[], [anthropic("error-500")]]) {
    test(`dynamic/route as step ${before.length}, whose second target answers`, async () => {
      const models = [...before, unified("dynamic/sea")];
      const { text, headers } = await generate(through(models));
      assert.deepEqual([text, headers["cf-aig-step"]], [chatText, String(before.length)]);
      assert.deepEqual((await askedModels()).slice(-2), ["error-500", "gpt-4.1-nano"]);
      const expected = await stream(direct.openai.chat("gpt-4.1-nano"));
      assert.equal((await stream(through(models))).text, expected.text);
    });
  }
});
