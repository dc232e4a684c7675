// The examples of the README are run as they stand there, each in a process of its own, against a server of its own.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { cleanUp, TestServer, within } from "./support.js";

after(cleanUp);

const readme = readFileSync("README.md", "utf8");
const examples = [...readme.matchAll(/## ([^\n]*)\n(?:(?!\n## )[^])*?```js\n([^]*?)```/g)];

// What the README says of Node before 22 and 18.
const PRELUDE = `import { webcrypto } from "node:crypto";
import { WebSocket } from "ws";
globalThis.WebSocket ??= WebSocket;
globalThis.crypto ??= webcrypto;
`;

const SAYS: Record<string, RegExp> = {
  "The first minute": /^1 hello\n$/,
  Publishing: /^somebody was first\n$/,
  Subscribing: /^1 3\n2 3\ndeleted\n$/,
  Queues: /^cat 1 1 0\ndog 1 1 0\nbroken 2 1 0\n$/,
  "Reading and administering": /^2\n2 false\n1 0\n2\nprices 4\n\d{4}-.*Z\n$/,
};

for (const [, title, code] of examples) {
  test(`example of "${title}" does what it says`, async () => {
    const server = await TestServer.start();
    const script = PRELUDE + code!.replaceAll("ws://127.0.0.1:8949/ws", server.url);
    const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let said = "";
    child.stdout.on("data", (chunk) => (said += chunk));
    let complained = "";
    child.stderr.on("data", (chunk) => (complained += chunk));
    const code_ = await within("the end of the example", new Promise((resolve) => child.once("close", resolve)));
    assert.equal(code_, 0, complained);
    assert.match(said, SAYS[title!]!);
  });
}

test("README has the examples that are run", () => {
  assert.deepEqual(
    examples.map(([, title]) => title),
    Object.keys(SAYS),
  );
});
