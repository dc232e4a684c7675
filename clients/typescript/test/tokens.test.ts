// Tokens: given, fetched, renewed on the living connection, and refused.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, test } from "node:test";
import { ClosedError, ConnectionError, type Status } from "infotainer";
import { cleanUp, Client, eager, eventually, TestServer, within } from "./support.js";

const SECRET = "a secret of more than thirty-two bytes";

let server: TestServer;
before(async () => (server = await TestServer.start({ INFOTAINER_JWT_SECRET: SECRET })));
after(cleanUp);

const connect = (options = {}) => Client.connect(server.url, { ...eager, ...options });

/** Good for so many seconds, and for everything. */
function token(seconds: number): string {
  const infotainer = Object.fromEntries(["subscribe", "publish", "read", "acknowledge", "manage"].map((name) => [name, ["*"]]));
  const claims = { sub: "alice", exp: Date.now() / 1000 + seconds, infotainer };
  const encoded = [{ alg: "HS256" }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${encoded}.${createHmac("sha256", SECRET).update(encoded).digest("base64url")}`;
}

const ended = (client: Client) =>
  within("the end", new Promise<Status>((resolve) => client.onStatus((status) => status.state === "closed" && resolve(status))));

test("a token that is given gets in", async () => {
  const client = await connect({ token: token(3600) });
  await client.publish("news", "x");
  await client.close();
});

test("a token that is not good ends the client, which does not come back", async () => {
  for (const bad of ["nonsense", token(-1)]) {
    await assert.rejects(connect({ token: bad }), (error) => {
      assert.ok(error instanceof ConnectionError);
      assert.deepEqual([error.kind, error.code], ["Closed", 4501]);
      return true;
    });
  }
});

test("a token is renewed before it ends", async () => {
  let fetched = 0;
  const client = await connect({ token: async () => token(fetched++ ? 3600 : 2) });
  await eventually("the renewal", () => fetched === 2);
  // Longer than the first one was good.
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  await client.publish("news", "x");
  assert.deepEqual([fetched, client.status.state], [2, "connected"]);
  await client.close();
});

test("a renewal that fails is tried again", async () => {
  let fetched = 0;
  const fetch = () => {
    if (++fetched === 2) throw new Error("it is Sunday");
    return token(fetched === 1 ? 4 : 3600);
  };
  const client = await connect({ token: fetch });
  await eventually("another attempt", () => fetched === 3);
  await client.publish("news", "x");
  await client.close();
});

test("a client whose token ended does not come back", async () => {
  const client = await connect({ token: token(1) });
  const status = await ended(client);
  assert.ok(status.state === "closed" && status.error instanceof ClosedError);
  assert.equal(status.error.cause?.code, 4501);
});

test("a token that can't be fetched is an attempt that failed", async () => {
  const fetch = () => Promise.reject(new Error("it is Sunday"));
  await assert.rejects(connect({ token: fetch }), (error) => {
    assert.ok(error instanceof ConnectionError);
    assert.match(String(error.cause), /it is Sunday/);
    return error.kind === "Token" && !error.isFinal;
  });
});
