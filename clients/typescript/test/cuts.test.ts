// One conversation with its connections cut at every byte of it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { newSession } from "infotainer";
import { cleanUp, Client, type Cut, eager, nextSequence, Proxy, stored, TestServer, within } from "./support.js";

const PUBLICATIONS = 6;
const AT_ONCE = 16;

let server: TestServer;
before(async () => (server = await TestServer.start()));
after(cleanUp);

/** Subscribes, publishes pipelined, takes what comes, and closes. */
async function conversation(client: Client, name: string): Promise<string[]> {
  const subscription = client.subscribe(name, { from: "First" });
  const underWay = Array.from({ length: PUBLICATIONS }, (_, n) => client.publish(name, `publication ${n + 1}`));
  for (const [at, publishing] of underWay.entries()) {
    const submitted = await within("Submitted", publishing);
    assert.equal(submitted.publicationId, publishing.publicationId);
    assert.equal(submitted.sequence, at + 1);
  }
  for (let n = 1; n <= PUBLICATIONS; n++) assert.equal(await nextSequence(subscription), n, name);
  await within("the goodbye", client.close());
  assert.deepEqual(await subscription.next(), { done: true, value: undefined });
  return underWay.map((publishing) => publishing.publicationId);
}

const options = (isDurable: boolean) => (isDurable ? { ...eager, session: newSession() } : eager);

/** How many bytes an undisturbed conversation has in each direction. */
async function undisturbed(isDurable: boolean): Promise<Cut> {
  const proxy = await Proxy.start(server);
  await conversation(new Client(proxy.url, options(isDurable)), `undisturbed ${isDurable}`);
  proxy.close();
  return proxy.carried;
}

/** Has the conversation with the first two connections cut, for every place to cut at, and holds the log to it. */
async function cutEverywhere(isDurable: boolean): Promise<void> {
  const whole = await undisturbed(isDurable);
  assert.ok(whole.toServer > 500 && whole.toClient > 500);
  const direct = await Client.connect(server.url, eager);
  const cuts: Cut[] = [
    ...Array.from({ length: whole.toServer }, (_, at) => ({ toServer: at, toClient: Infinity })),
    ...Array.from({ length: whole.toClient }, (_, at) => ({ toServer: Infinity, toClient: at })),
  ];
  const halved = (bytes: number) => (bytes === Infinity ? bytes : Math.floor(bytes / 2));
  const work = cuts.values();
  const worker = async () => {
    for (const cut of work) {
      const name = `cut ${isDurable} ${cut.toServer} ${cut.toClient}`;
      const proxy = await Proxy.start(server);
      // The second one is cut elsewhere, so that what is sent again is cut too.
      proxy.cut(cut, { toServer: halved(cut.toServer), toClient: halved(cut.toClient) });
      const ids = await conversation(new Client(proxy.url, options(isDurable)), name);
      proxy.close();
      assert.deepEqual(await stored(direct, name), ids, name);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  await direct.close();
}

test("publications are logged and delivered once wherever a connection is cut", () => cutEverywhere(false));

test("publications are logged and delivered once wherever a durable one is cut", () => cutEverywhere(true));
