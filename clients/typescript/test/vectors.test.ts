// The shared test vectors (docs/vectors), read as every client reads them.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { decode, encode } from "cborg";
import "./support.js";
import { decodeResponse, encodeCommand } from "../dist/codec.js";
import type { Commands } from "../dist/protocol.js";
import { subscriptionId } from "../dist/uuid.js";

interface Vector {
  name: string;
  hex: string;
  diagnostic: string | null;
  request_id?: number;
  command?: keyof Commands;
  response?: string;
  fields?: Record<string, unknown>;
  error?: { code: string };
  exact?: boolean;
  uuid?: string;
}

const FOLDER = new URL("../../../docs/vectors/", import.meta.url);
const files = readdirSync(FOLDER)
  .filter((name) => name.endsWith(".json"))
  .map((name) => JSON.parse(readFileSync(new URL(name, FOLDER), "utf8")));

function vectors(direction: string): Vector[] {
  const found = files.filter((file) => file.direction === direction).flatMap((file) => file.vectors);
  assert.ok(found.length > 0);
  return found;
}

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, "hex"));
/** What a message of these bytes says. */
const received = (message: Uint8Array) => decodeResponse(Uint8Array.from(message).buffer);

/** The fields of a vector as this client spells them: in camelCase, with bytes where the vector has their digits. */
function spelled(value: unknown, key = ""): unknown {
  if (Array.isArray(value)) return value.map((item) => spelled(item, key));
  if (typeof value === "object" && value !== null) {
    const pairs = Object.entries(value).map(([name, field]) => [
      name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase()),
      spelled(field, name),
    ]);
    return Object.fromEntries(pairs);
  }
  return key === "submission" || key === "data" ? bytes(value as string) : value;
}

test("each command is encoded as its exact vector says, byte for byte", () => {
  let count = 0;
  for (const vector of vectors("client-to-server").filter((one) => one.exact && one.command)) {
    const message = encodeCommand(vector.command!, spelled(vector.fields) as never, vector.request_id);
    assert.equal(Buffer.from(message).toString("hex"), vector.hex, vector.name);
    count += 1;
  }
  assert.ok(count > 100, `${count}`);
});

test("each response is understood as its vector says", () => {
  for (const vector of vectors("server-to-client")) {
    const { id, response } = received(bytes(vector.hex));
    assert.equal(id, vector.request_id, vector.name);
    assert.equal(response.name, vector.response, vector.name);
    assert.deepEqual(response.fields, spelled(vector.fields), vector.name);
  }
});

test("what is not well-formed is refused, and no wrong command is taken for a response", () => {
  const responses = new Set(vectors("server-to-client").map((vector) => vector.response));
  let refused = 0;
  for (const vector of vectors("client-to-server").filter((one) => one.error?.code === "malformed")) {
    const read = () => received(bytes(vector.hex));
    if (vector.diagnostic === null) {
      assert.throws(read, vector.name);
      refused += 1;
    } else {
      let name: string | undefined;
      try {
        name = read().response.name;
      } catch {
        // As well.
      }
      assert.ok(!responses.has(name), vector.name);
    }
  }
  assert.ok(refused > 20, `${refused}`);
});

test("each name stands for the UUID that its vector says", () => {
  const named = vectors("client-to-server").filter((vector) => vector.uuid && vector.fields);
  assert.ok(named.length > 10);
  for (const { name, uuid, fields } of named) {
    assert.equal(subscriptionId((fields!["subscription_id"] ?? fields!["log_id"]) as string), uuid, name);
  }
});

test("no field of a response is taken for one of another type", () => {
  for (const vector of vectors("server-to-client").filter((one) => one.exact)) {
    const message = decode(bytes(vector.hex));
    const envelope = Array.isArray(message) ? message[1] : message;
    const fields = envelope[vector.response!];
    for (const key of Object.keys(fields)) {
      for (const wrong of [1.5, -1, { x: { y: 1.5 } }]) {
        const was = fields[key];
        fields[key] = wrong;
        assert.throws(() => received(encode(message)), `${vector.name}: ${key}`);
        fields[key] = was;
      }
    }
    received(encode(message));
  }
});

test("responses cut anywhere are refused", () => {
  for (const vector of vectors("server-to-client")) {
    const message = bytes(vector.hex);
    for (let length = 0; length < message.length; length++) {
      assert.throws(() => received(message.subarray(0, length)), `${vector.name}: ${length}`);
    }
    assert.throws(() => received(Uint8Array.from([...message, 0])), vector.name);
  }
});

test("sequences that a number does not hold exactly are refused", () => {
  const pong = (time: bigint) => encode({ Pong: { time } });
  assert.deepEqual(received(pong(2n ** 53n - 1n)).response, { name: "Pong", fields: { time: 2 ** 53 - 1 } });
  assert.throws(() => received(pong(2n ** 53n)));
  assert.throws(() => received(pong(2n ** 64n - 1n)));
});

test("responses and fields of a later server are no fault", () => {
  const later = encode({ Pong: { time: 7, region: "eu", hops: [1, 2], is_near: true, nothing: null } });
  assert.equal((received(later).response.fields as { time: number }).time, 7);
  assert.equal(received(encode([7, { Later: { when: 1 } }])).id, 7);
});
