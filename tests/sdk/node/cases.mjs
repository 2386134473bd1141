// The calls of the Node SDKs. Each is made directly and through the gateway, and must not differ.

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const apiKey = "sk-test-key-of-the-application";
const question = "What does the sea say, in one line? Ça va 🌊";
const messages = [{ role: "user", content: question }];

const options = (baseURL) => ({ apiKey, baseURL, maxRetries: 0 });

// The fake's base path stands for the provider's own base URL.
export const sdks = {
  openai: { basePath: "/openai/v1", connect: (url) => new OpenAI(options(url)) },
  anthropic: { basePath: "/anthropic", connect: (url) => new Anthropic(options(url)) },
};

const chat = (client, model) => client.chat.completions.create({ model, messages });
const chatStream = (client, model) =>
  client.chat.completions.create({
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
const responses = (client, model) => client.responses.create({ model, input: question });
const responsesStream = (client, model) =>
  client.responses.create({ model, input: question, stream: true });
const embeddings = (client, model) => client.embeddings.create({ model, input: ["ebb", "flow"] });
const claude = (client, model) => client.messages.create({ model, max_tokens: 2048, messages });
const claudeStream = (client, model) =>
  client.messages.create({
    model,
    max_tokens: 2048,
    messages,
    thinking: { type: "enabled", budget_tokens: 1024 },
    stream: true,
  });

// [sdk, call, model]: the model chooses the fixture that answers.
export const answers = [
  ["openai", chat, "gpt-4.1-nano"],
  ["openai", chat, "gpt-4.1-mini"],
  ["openai", chat, "gpt-gzip"],
  ["openai", chatStream, "gpt-4.1-nano"],
  ["openai", chatStream, "gpt-gzip"],
  ["openai", responses, "gpt-4.1-nano"],
  ["openai", responsesStream, "gpt-4.1-nano"],
  ["openai", embeddings, "text-embedding-3-small"],
  ["anthropic", claude, "claude-haiku-4-5"],
  ["anthropic", claude, "claude-sonnet-5"],
  ["anthropic", claude, "claude-gzip"],
  ["anthropic", claudeStream, "claude-sonnet-5"],
  ["anthropic", claudeStream, "claude-gzip"],
];

export const errors = [
  ["openai", chat, "error-401"],
  ["openai", chat, "error-429"],
  ["openai", chat, "error-500"],
  ["anthropic", claude, "error-401"],
  ["anthropic", claude, "error-429"],
  ["anthropic", claude, "error-500"],
];

// Streams that the provider breaks off, between two events or inside one.
export const broken = [
  ["openai", chatStream, "gpt-cut"],
  ["openai", chatStream, "gpt-cut-inside"],
  ["openai", chatStream, "gpt-gzip-cut"],
  ["openai", responsesStream, "gpt-cut"],
  ["anthropic", claudeStream, "claude-cut"],
  ["anthropic", claudeStream, "claude-cut-inside"],
];
