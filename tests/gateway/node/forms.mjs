// The tools and the form that SDKs are tried with, and what the stand-in makes of them.
import assert from "node:assert/strict";
import { z } from "zod";

export const MODEL = "the-model";
export const QUESTION = "What is the weather in Paris?";
export const TEXT = "Paris, où le café coûte 3 €.";
export const FILE = '{"custom_id": "one"}\n';
export const VECTOR = [0.25, -0.5, 1.0];

const string = { type: "string" };
const object = (properties) => ({
  type: "object",
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});
export const TOOLS = {
  weather: object({ city: string, days: { type: "integer" } }),
  clock: object({ city: string }),
};
export const CALLED = [
  ["weather", { city: "Paris", days: 3 }],
  ["clock", { city: "Paris" }],
];

export const Weather = z.object({ city: z.string(), days: z.number().int() });
export const weather = ({ city, days }) => `${days} days of sun in ${city}`;
export const HEARD = "3 days of sun in Paris";

export const Report = z.object({
  city: z.string(),
  degrees: z.array(z.number()),
  is_sunny: z.boolean(),
  place: z.object({ name: z.string() }),
});
export const REPORT = {
  city: "Paris",
  degrees: [0.5],
  is_sunny: true,
  place: { name: "Paris" },
};

export async function all(values) {
  const found = [];
  // What can be read at once may be a promise too, of something else.
  const stream = Symbol.asyncIterator in values ? values : await values;
  for await (const one of stream) found.push(one);
  return found;
}

export const same = (expected, got) => assert.deepEqual(got, expected);
