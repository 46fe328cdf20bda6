// What is tried with @google/genai, Google's SDK for Node.
import { createPartFromFunctionResponse, GoogleGenAI } from "@google/genai";
import { z } from "zod";
import * as forms from "./forms.mjs";
import { all, CALLED, FILE, HEARD, MODEL, QUESTION, REPORT, same, TEXT } from "./forms.mjs";

const ASK = { model: MODEL, contents: QUESTION };
const declared = Object.entries(forms.TOOLS).map(([name, parametersJsonSchema]) => ({
  name,
  parametersJsonSchema,
}));
const config = { tools: [{ functionDeclarations: declared }] };
const called = (reply) => reply.functionCalls.map((call) => [call.name, call.args]);

// An answer carries the headers with which it came.
function bare(reply) {
  const { sdkHttpResponse, automaticFunctionCallingHistory, ...rest } = reply;
  return rest;
}

export function make({ url, key, retries, timeoutMs }) {
  const httpOptions = {};
  if (url) httpOptions.baseUrl = url;
  if (retries) httpOptions.retryOptions = { attempts: retries + 1 };
  if (timeoutMs) httpOptions.timeout = timeoutMs;
  return new GoogleGenAI({ apiKey: key, httpOptions });
}

export const ask = (ai, model, contents) => ai.models.generateContent({ model, contents });

export const stream = (ai, model) => ai.models.generateContentStream({ ...ASK, model });

export async function headers(ai) {
  const reply = await ask(ai, MODEL, QUESTION);
  same(TEXT, reply.text);
  return reply.sdkHttpResponse.headers;
}

export const checks = {
  async "plain calls"(ai) {
    const reply = await ai.models.generateContent(ASK);
    same(TEXT, reply.text);
    return bare(reply);
  },

  async streams(ai) {
    const parts = await all(stream(ai, MODEL));
    same(TEXT, parts.map((one) => one.text).join(""));
    return parts.map(bare);
  },

  async tools(ai) {
    const asked = await ai.models.generateContent({ ...ASK, config });
    same(CALLED, called(asked));
    const told = asked.functionCalls.map(({ id, name }) =>
      createPartFromFunctionResponse(id, name, { result: `heard ${name}` }),
    );
    const contents = [
      { role: "user", parts: [{ text: QUESTION }] },
      asked.candidates[0].content,
      { role: "user", parts: told },
    ];
    const reply = await ai.models.generateContent({ model: MODEL, contents, config });
    same("heard weather, heard clock", reply.text);
    return [bare(asked), bare(reply)];
  },

  async "streamed tools"(ai) {
    const parts = await all(ai.models.generateContentStream({ ...ASK, config }));
    same(CALLED, called(parts.at(-1)));
    return parts.map(bare);
  },

  async "tool runner"(ai) {
    const tool = {
      tool: async () => ({ functionDeclarations: [declared[0]] }),
      callTool: async (calls) =>
        calls.map(({ id, name, args }) =>
          createPartFromFunctionResponse(id, name, { result: forms.weather(args) }),
        ),
    };
    const reply = await ai.models.generateContent({ ...ASK, config: { tools: [tool] } });
    same(HEARD, reply.text);
    return bare(reply);
  },

  async "structured output"(ai) {
    const responseJsonSchema = z.toJSONSchema(forms.Report);
    const form = { responseMimeType: "application/json", responseJsonSchema };
    const reply = await ai.models.generateContent({ ...ASK, config: form });
    same(REPORT, forms.Report.parse(JSON.parse(reply.text)));
    return bare(reply);
  },

  async embeddings(ai) {
    const contents = ["one", "two"];
    const reply = await ai.models.embedContent({ model: MODEL, contents });
    same([forms.VECTOR, forms.VECTOR], reply.embeddings.map((one) => one.values));
    return bare(reply);
  },

  async "counting tokens"(ai) {
    const said = await ai.models.countTokens(ASK);
    same(11, said.totalTokens);
    return bare(said);
  },

  async "list of models"(ai) {
    const rows = await all(ai.models.list());
    same([`models/${MODEL}`], rows.map((row) => row.name));
    return rows;
  },

  async files(ai) {
    const file = new Blob([FILE], { type: "text/plain" });
    const made = await ai.files.upload({ file, config: { displayName: "asked.jsonl" } });
    const found = await ai.files.get({ name: made.name });
    const rows = await all(ai.files.list());
    await ai.files.delete({ name: made.name });
    same([FILE.length, FILE.length], [+made.sizeBytes, +found.sizeBytes]);
    // `uri` is of the provider, which is asked under two names here
    return [made, found, ...rows].map(({ uri, ...rest }) => bare(rest));
  },

  async batches(ai) {
    const src = [{ contents: [{ role: "user", parts: [{ text: "hi" }] }] }];
    const made = await ai.batches.create({ model: MODEL, src });
    const done = await ai.batches.get({ name: made.name });
    same("JOB_STATE_SUCCEEDED", done.state);
    return [bare(made), bare(done)];
  },
};
