// Plays an SDK: `node play.mjs SDK PART`, where and as whom is read as JSON.
// Prints one JSON object; what went wrong in it is an object with `wrong`.
import { json } from "node:stream/consumers";
import { MODEL } from "./forms.mjs";

const RETRIES = 2;
const [, , name, part] = process.argv;
const sdk = await import(`./${name}.mjs`);
const stage = await json(process.stdin);
const { url, key } = stage;

async function raised(act) {
  try {
    await act();
  } catch (error) {
    const kind = error.constructor.name;
    return [kind === "DOMException" ? error.name : kind, error.status ?? null];
  }
  return null;
}

const parts = {
  // Each check by its name: what it got.
  async checks() {
    const ai = sdk.make({ url, key });
    const got = {};
    for (const [what, check] of Object.entries(sdk.checks)) {
      got[what] = await check(ai).catch((error) => ({ wrong: `${error.stack}` }));
    }
    return got;
  },

  // By status: the class that is raised, which knows the status.
  async refusals() {
    const got = {};
    for (const [status, [at, as, text]] of Object.entries(stage.odds)) {
      const ai = sdk.make({ url: at, key: as });
      got[status] = await raised(async () => {
        await sdk.ask(ai, MODEL, text);
        await sdk.ask(ai, MODEL, text); // one a day is let in
      });
    }
    return got;
  },

  async retries() {
    const ai = sdk.make({ url, key, retries: RETRIES });
    for (let call = 0; call < 2; call++) await sdk.ask(ai, MODEL, "hi");
    return {};
  },

  async timeout() {
    const ai = sdk.make({ url, key, retries: 0, timeoutMs: 300 });
    return { raised: await raised(() => sdk.ask(ai, stage.model, "hi")) };
  },

  async leaving() {
    let seen = 0;
    for await (const _ of await sdk.stream(sdk.make({ url, key }), stage.model)) {
      if (++seen === 3) break;
    }
    return { seen };
  },

  async headers() {
    return sdk.headers(sdk.make({ url, key }));
  },

  // Pointed by the environment alone.
  async environment() {
    await sdk.ask(sdk.make({}), MODEL, "hi");
    return {};
  },
};

process.stdout.write(JSON.stringify(await parts[part]()));
