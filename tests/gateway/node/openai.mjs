// What is tried with openai, OpenAI's SDK for Node.
import OpenAI, { toFile } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import * as forms from "./forms.mjs";
import { all, CALLED, FILE, HEARD, MODEL, QUESTION, REPORT, same, TEXT } from "./forms.mjs";

const messages = [{ role: "user", content: QUESTION }];
const CHAT = { model: MODEL, max_tokens: 90, messages };
const ASK = { model: MODEL, input: QUESTION, max_output_tokens: 90 };
const flat = Object.entries(forms.TOOLS).map(([name, parameters]) => ({
  type: "function",
  name,
  parameters,
  strict: true,
}));
const tools = flat.map(({ type, ...rest }) => ({ type, function: rest }));
const called = (calls) => calls.map((one) => [one.name, JSON.parse(one.arguments)]);

export const make = ({ url, key, retries, timeoutMs }) =>
  new OpenAI({ baseURL: url, apiKey: key, maxRetries: retries, timeout: timeoutMs });

export const ask = (ai, model, content) =>
  ai.chat.completions.create({ model, messages: [{ role: "user", content }] });

export const stream = (ai, model) =>
  ai.chat.completions.create({ ...CHAT, model, stream: true });

export async function headers(ai) {
  const { data, response, request_id } = await ai.chat.completions
    .create(CHAT)
    .withResponse();
  same(TEXT, data.choices[0].message.content);
  same("req_1", request_id);
  return Object.fromEntries(response.headers);
}

export const checks = {
  async "plain calls"(ai) {
    const reply = await ai.chat.completions.create(CHAT);
    same(TEXT, reply.choices[0].message.content);
    return reply;
  },

  async streams(ai) {
    const chunks = await all(stream(ai, MODEL));
    same(TEXT, chunks.map((one) => one.choices[0].delta.content ?? "").join(""));
    const options = { stream: true, stream_options: { include_usage: true } };
    const told = await all(ai.chat.completions.create({ ...CHAT, ...options }));
    same([undefined, 18], [chunks.at(-1).usage, told.at(-1).usage.total_tokens]);
    const whole = await ai.chat.completions.stream(CHAT).finalChatCompletion();
    return [chunks, told, whole];
  },

  async "Responses API"(ai) {
    const reply = await ai.responses.create(ASK);
    same(TEXT, reply.output_text);
    const events = await all(ai.responses.create({ ...ASK, stream: true }));
    const whole = await ai.responses.stream(ASK).finalResponse();
    same(TEXT, whole.output_text);
    return [reply, events, whole];
  },

  async tools(ai) {
    const asked = await ai.chat.completions.create({ ...CHAT, tools });
    const said = asked.choices[0].message;
    same(CALLED, called(said.tool_calls.map((call) => call.function)));
    const told = said.tool_calls.map(({ id }) => ({
      role: "tool",
      tool_call_id: id,
      content: `heard ${id}`,
    }));
    const more = { messages: [...messages, said, ...told], tools };
    const reply = await ai.chat.completions.create({ ...CHAT, ...more });
    same("heard call_0, heard call_1", reply.choices[0].message.content);
    const other = await ai.responses.create({ ...ASK, tools: flat });
    same(CALLED, called(other.output));
    return [asked, reply, other];
  },

  async "streamed tools"(ai) {
    const asked = { ...CHAT, tools };
    const chunks = await all(ai.chat.completions.create({ ...asked, stream: true }));
    const whole = await ai.chat.completions.stream(asked).finalChatCompletion();
    const calls = whole.choices[0].message.tool_calls;
    same(CALLED, called(calls.map((call) => call.function)));
    const other = await ai.responses.stream({ ...ASK, tools: flat }).finalResponse();
    same(CALLED, called(other.output));
    return [chunks, whole, other];
  },

  async "tool runner"(ai) {
    const tool = {
      type: "function",
      function: {
        name: "weather",
        parameters: forms.TOOLS.weather,
        parse: JSON.parse,
        function: forms.weather,
      },
    };
    const runner = ai.chat.completions.runTools({ ...CHAT, tools: [tool] });
    const said = await runner.finalContent();
    same(HEARD, said);
    return [said, await runner.totalUsage()];
  },

  async "structured output"(ai) {
    const form = zodResponseFormat(forms.Report, "report");
    const asked = { ...CHAT, response_format: form };
    const reply = await ai.chat.completions.parse(asked);
    same(REPORT, reply.choices[0].message.parsed);
    const whole = await ai.chat.completions.stream(asked).finalChatCompletion();
    same(REPORT, whole.choices[0].message.parsed);
    const format = zodTextFormat(forms.Report, "report");
    const other = await ai.responses.parse({ ...ASK, text: { format } });
    same(REPORT, other.output_parsed);
    return [reply, whole, other];
  },

  async embeddings(ai) {
    const reply = await ai.embeddings.create({ model: MODEL, input: ["one", "two"] });
    same([forms.VECTOR, forms.VECTOR], reply.data.map((one) => [...one.embedding]));
    return reply;
  },

  async "counting tokens"(ai) {
    const said = await ai.responses.inputTokens.count({ model: MODEL, input: QUESTION });
    same(11, said.input_tokens);
    return said;
  },

  async "list of models"(ai) {
    const rows = await all(ai.models.list());
    same([MODEL], rows.map((row) => row.id));
    return rows;
  },

  async files(ai) {
    const file = await toFile(Buffer.from(FILE), "asked.jsonl");
    const made = await ai.files.create({ file, purpose: "batch" });
    const found = await ai.files.retrieve(made.id);
    const rows = await all(ai.files.list());
    same(FILE, await (await ai.files.content(made.id)).text());
    return [made, found, rows, await ai.files.delete(made.id)];
  },

  async batches(ai) {
    const file = await toFile(Buffer.from(FILE), "asked.jsonl");
    const source = await ai.files.create({ file, purpose: "batch" });
    const made = await ai.batches.create({
      input_file_id: source.id,
      endpoint: "/v1/chat/completions",
      completion_window: "24h",
    });
    const done = await ai.batches.retrieve(made.id);
    same(["validating", "completed"], [made.status, done.status]);
    return [made, done, await all(ai.batches.list())];
  },
};
