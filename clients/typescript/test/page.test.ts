// A real page in a headless Chromium: it publishes and subscribes, comes back after its connection broke, and makes no attempts while
// it is hidden or offline.

import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import { existsSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { build } from "esbuild";
import { type Browser, chromium, type Page } from "playwright-core";
import { type Client, subscriptionId } from "infotainer";
import { cleanUp, eventually, Proxy, TestServer } from "./support.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
/** A name of this machine that a page does not take for one. */
const NAME = "server.test";

interface World {
  client: Client;
  states: string[];
  seen: (number | string)[];
  Client: typeof Client;
}

let server: TestServer;
let proxy: Proxy;
let pages: Server;
let browser: Browser;
let origin: string;

const skip = !process.env.CHROMIUM && !existsSync(CHROMIUM) && `there is no ${CHROMIUM}`;

before(async () => {
  if (skip) return;
  const entry = `export * from "infotainer"`;
  const { outputFiles } = await build({
    stdin: { contents: entry, resolveDir: process.cwd() },
    bundle: true,
    format: "esm",
    write: false,
  });
  const script = outputFiles[0]!.text;
  pages = createServer(({ url = "" }, response) => {
    const isBuilt = /^\/(dist|node_modules\/cborg)\/[\w./-]+\.js$/.test(url);
    response.setHeader("content-type", isBuilt || url === "/infotainer.js" ? "text/javascript" : "text/html");
    if (url === "/infotainer.js") response.end(script);
    else if (isBuilt) response.end(readFileSync(`.${url}`));
    else if (url === "/hello.html") response.end(page("../../README.md").replace("ws://127.0.0.1:8949/ws", server.url));
    else if (url === "/modules.html") response.end(`${page("README.md")}<script type="module">${MODULES}</script>`);
    else response.end("<!doctype html><title>infotainer</title>");
  });
  await new Promise<void>((resolve) => pages.listen(0, "127.0.0.1", resolve));
  origin = `http://localhost:${(pages.address() as { port: number }).port}`;
  server = await TestServer.start({ INFOTAINER_ALLOWED_ORIGINS: origin });
  proxy = await Proxy.start(server);
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      `--host-resolver-rules=MAP ${NAME} 127.0.0.1`,
    ],
  });
});

after(async () => {
  await browser?.close();
  pages?.close();
  await cleanUp();
});

/** As it stands in a README, to be served from this folder. */
function page(readme: string): string {
  const pages = [...readFileSync(readme, "utf8").matchAll(/```html\n([^]*?)```/g)];
  assert.equal(pages.length, 1);
  return pages[0]![1]!;
}

const MODULES = `import { subscriptionId } from "infotainer"; document.body.append(subscriptionId("greetings"));`;

/** A page whose client is subscribed to `name` and notes what it sees. */
async function open(name: string, url: string, options: object = {}): Promise<Page> {
  const page = await (await browser.newContext()).newPage();
  await page.goto(origin);
  await page.evaluate(
    async ([name, url, options]) => {
      const world = globalThis as unknown as World;
      const { Client } = await import("/infotainer.js" as string);
      world.Client = Client;
      world.states = [];
      world.seen = [];
      world.client = new Client(url, { reconnect: { firstPause: 1, longestPause: 4 }, ...(options as object) });
      world.client.onStatus((status) =>
        world.states.push(status.state === "waiting" && status.paused ? status.paused : status.state),
      );
      const subscription = world.client.subscribe(name as string, { from: "First" });
      await subscription.subscribed;
      void (async () => {
        for await (const event of subscription) {
          world.seen.push(event.type === "Publication" ? event.sequence : event.type);
        }
      })();
    },
    [name, url, options] as const,
  );
  return page;
}

const evaluate = <T>(page: Page, what: (world: World) => T | Promise<T>): Promise<T> =>
  page.evaluate(`(${what.toString()})(globalThis)`) as Promise<T>;
const states = (page: Page) => evaluate(page, (world) => world.states);
const last = async (page: Page) => (await states(page)).at(-1);

/** Makes the page look hidden, or seen again. */
const show = (page: Page, state: "hidden" | "visible") =>
  page.evaluate((state) => {
    Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, state);

test("page publishes, subscribes, and comes back where it was", { skip }, async () => {
  const page = await open("page", proxy.url);
  const sequences = await evaluate(page, async ({ client }) => {
    const submitted = await Promise.all(["one", "two"].map((text) => client.publish("page", text)));
    return submitted.map((one) => one.sequence);
  });
  assert.deepEqual(sequences, [1, 2]);
  proxy.down();
  await eventually("the pause", async () => (await states(page)).includes("waiting"));
  proxy.up();
  await evaluate(page, ({ client }) => client.publish("page", "three"));
  await eventually("three", async () => (await evaluate(page, (world) => world.seen)).length === 3);
  assert.deepEqual(await evaluate(page, (world) => world.seen), [1, 2, 3]);
  await evaluate(page, ({ client }) => client.close());
  assert.equal(await last(page), "closed");
});

test("page of the project's README says hello", { skip }, async () => {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${origin}/hello.html`);
  await eventually("hello", async () => (await page.innerText("body")).trim() === "1 hello from a page");
});

test("modules are loaded with the import map of the client's README", { skip }, async () => {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${origin}/modules.html`);
  await eventually("an id", async () => (await page.innerText("body")).trim() === subscriptionId("greetings"));
});

test("server is not reached from a page of another origin", { skip }, async () => {
  const page = await (await browser.newContext()).newPage();
  await page.goto(origin.replace("localhost", "127.0.0.1"));
  const kind = await page.evaluate(async (url) => {
    const { Client } = await import("/infotainer.js" as string);
    return Client.connect(url).catch((error: { kind: string }) => error.kind);
  }, server.url);
  assert.equal(kind, "Io");
});

test("page that has been hidden for long makes no attempts until it is seen", { skip }, async () => {
  const page = await open("hidden", proxy.url, { hiddenAfter: 1 });
  await show(page, "hidden");
  proxy.down();
  await eventually("the pause", async () => (await last(page)) === "hidden");
  const { connections } = proxy;
  proxy.up();
  // Hidden pages come and go; nothing of that is an attempt.
  await show(page, "hidden");
  await page.evaluate(() => dispatchEvent(new Event("online")));
  assert.equal(await last(page), "hidden");
  assert.equal(proxy.connections, connections);
  await show(page, "visible");
  await eventually("the connection", async () => (await last(page)) === "connected");
  assert.equal(proxy.connections, connections + 1);
  await evaluate(page, ({ client }) => client.close());
});

test("page that is offline makes no attempts until it is online", { skip }, async () => {
  const page = await open("offline", `ws://${NAME}:${proxy.port}/ws`);
  await page.context().setOffline(true);
  proxy.down();
  await eventually("the pause", async () => (await last(page)) === "offline");
  const { connections } = proxy;
  proxy.up();
  await show(page, "visible");
  assert.equal(await last(page), "offline");
  assert.equal(proxy.connections, connections);
  await page.context().setOffline(false);
  await eventually("the connection", async () => (await last(page)) === "connected");
  await evaluate(page, ({ client }) => client.publish("offline", "back"));
  await eventually("the publication", async () => (await evaluate(page, (world) => world.seen)).length === 1);
  await evaluate(page, ({ client }) => client.close());
});

test("page's slow reader misses nothing", { skip }, async () => {
  const page = await open("slow", server.url);
  const seen = await evaluate(page, async ({ client }) => {
    const slow = client.subscribe("slow page", { from: "First", buffer: { events: 8 } });
    await Promise.all(Array.from({ length: 500 }, () => client.publish("slow page", new Uint8Array(1_000))));
    const sequences: number[] = [];
    for await (const event of slow) {
      if (event.type === "Publication") sequences.push(event.sequence);
      if (sequences.length === 500) break;
      await new Promise((resolve) => queueMicrotask(() => resolve(undefined)));
    }
    return sequences;
  });
  assert.deepEqual(
    seen,
    Array.from({ length: 500 }, (_, at) => at + 1),
  );
  await evaluate(page, ({ client }) => client.close());
});
