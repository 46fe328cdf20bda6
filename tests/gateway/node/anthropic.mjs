// What is tried with @anthropic-ai/sdk, Anthropic's SDK for Node.
import Anthropic, { toFile } from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import * as forms from "./forms.mjs";
import { all, CALLED, FILE, HEARD, MODEL, QUESTION, REPORT, same, TEXT } from "./forms.mjs";

const messages = [{ role: "user", content: QUESTION }];
const ASK = { model: MODEL, max_tokens: 90, messages };
const tools = Object.entries(forms.TOOLS).map(([name, input_schema]) => ({
  name,
  input_schema,
}));
const called = (reply) => reply.content.map((block) => [block.name, block.input]);

export const make = ({ url, key, retries, timeoutMs }) =>
  new Anthropic({ baseURL: url, apiKey: key, maxRetries: retries, timeout: timeoutMs });

export const ask = (ai, model, content) =>
  ai.messages.create({ ...ASK, model, messages: [{ role: "user", content }] });

export const stream = (ai, model) =>
  ai.messages.create({ ...ASK, model, stream: true });

export async function headers(ai) {
  const { data, response, request_id } = await ai.messages.create(ASK).withResponse();
  same(TEXT, data.content[0].text);
  same("req_1", request_id);
  return Object.fromEntries(response.headers);
}

export const checks = {
  async "plain calls"(ai) {
    const reply = await ai.messages.create(ASK);
    same(TEXT, reply.content[0].text);
    return reply;
  },

  async streams(ai) {
    const events = await all(stream(ai, MODEL));
    const whole = await ai.messages.stream(ASK).finalMessage();
    same([TEXT, 7], [whole.content[0].text, whole.usage.output_tokens]);
    return [events, whole];
  },

  async tools(ai) {
    const asked = await ai.messages.create({ ...ASK, tools });
    same(["tool_use", CALLED], [asked.stop_reason, called(asked)]);
    const told = asked.content.map(({ id }) => ({
      type: "tool_result",
      tool_use_id: id,
      content: `heard ${id}`,
    }));
    const said = [
      ...messages,
      { role: "assistant", content: asked.content },
      { role: "user", content: told },
    ];
    const reply = await ai.messages.create({ ...ASK, messages: said, tools });
    same("heard toolu_0, heard toolu_1", reply.content[0].text);
    return [asked, reply];
  },

  async "streamed tools"(ai) {
    const events = await all(ai.messages.create({ ...ASK, tools, stream: true }));
    const whole = await ai.messages.stream({ ...ASK, tools }).finalMessage();
    same(CALLED, called(whole));
    return [events, whole];
  },

  async "tool runner"(ai) {
    const tool = betaZodTool({
      name: "weather",
      description: "It",
      inputSchema: forms.Weather,
      run: forms.weather,
    });
    const rounds = await all(ai.beta.messages.toolRunner({ ...ASK, tools: [tool] }));
    same(HEARD, rounds.at(-1).content[0].text);
    return rounds;
  },

  async "structured output"(ai) {
    const asked = { ...ASK, output_config: { format: zodOutputFormat(forms.Report) } };
    const reply = await ai.messages.parse(asked);
    same(REPORT, reply.parsed_output);
    const whole = await ai.messages.stream(asked).finalMessage();
    same(REPORT, whole.parsed_output);
    return [reply, whole];
  },

  async "counting tokens"(ai) {
    const said = await ai.messages.countTokens({ model: MODEL, messages });
    same(11, said.input_tokens);
    return said;
  },

  async "list of models"(ai) {
    const rows = await all(ai.models.list());
    same([MODEL], rows.map((row) => row.id));
    return rows;
  },

  async files(ai) {
    const file = await toFile(Buffer.from(FILE), "asked.jsonl", { type: "text/plain" });
    const made = await ai.beta.files.upload({ file });
    const found = await ai.beta.files.retrieveMetadata(made.id);
    const rows = await all(ai.beta.files.list());
    same(FILE, await (await ai.beta.files.download(made.id)).text());
    return [made, found, rows, await ai.beta.files.delete(made.id)];
  },

  async batches(ai) {
    const { batches } = ai.messages;
    const made = await batches.create({ requests: [{ custom_id: "one", params: ASK }] });
    const done = await batches.retrieve(made.id);
    same(["in_progress", "ended"], [made.processing_status, done.processing_status]);
    const rows = await all(batches.results(made.id));
    same(["one", TEXT], [rows[0].custom_id, rows[0].result.message.content[0].text]);
    return [made, rows]; // `done` names where its results are
  },
};
