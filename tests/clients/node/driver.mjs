// OpenAI's own client for JavaScript. Reads calls from stdin, as JSON, one per line, and prints the result of each
// call.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

// The packages are in the cache folder, not beside this file.
const [packages, url] = process.argv.slice(2);
const { default: OpenAI } = await import(pathToFileURL(createRequire(`${packages}/`).resolve("openai")));
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 600_000 });

const calls = {
  models: async () => {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    return { names };
  },
  chat: async (body) => {
    const answer = await client.chat.completions.create(body);
    const [choice] = answer.choices;
    return { text: choice.message.content, calls: choice.message.tool_calls, reason: choice.finish_reason, usage: answer.usage };
  },
  // The client assembles the chunks, and its event handlers get each of them.
  chat_stream: async (body) => {
    let pieces = 0;
    const stream = client.chat.completions.stream(body);
    stream.on("content", () => pieces++);
    const answer = await stream.finalChatCompletion();
    const [choice] = answer.choices;
    return { text: choice.message.content, calls: choice.message.tool_calls, reason: choice.finish_reason, usage: answer.usage, pieces };
  },
  completion: async (body) => ({ text: (await client.completions.create(body)).choices[0].text }),
  completion_stream: async (body) => {
    let text = "";
    for await (const chunk of await client.completions.create({ ...body, stream: true })) text += chunk.choices[0].text;
    return { text };
  },
  // Hangs up after the first piece.
  abort: async (body) => {
    const stream = await client.completions.create({ ...body, stream: true });
    for await (const _ of stream) break;
    return { aborted: stream.controller.signal.aborted };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { call, ...body } = JSON.parse(line);
  let said;
  try {
    said = await calls[call](body);
  } catch (error) {
    said = { error: error.constructor.name, status: error.status, param: error.param, message: error.message };
  }
  console.log(JSON.stringify(said));
}
