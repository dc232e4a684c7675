// What a server should never send: it is refused, and does no harm.

import assert from "node:assert/strict";
import { test } from "node:test";
import { encode } from "cborg";
import "./support.js";
import { decodeResponse, encodeCommand } from "../dist/codec.js";

const received = (message: Uint8Array) => decodeResponse(Uint8Array.from(message).buffer);
const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, "hex"));
const hex = (text: string) => Buffer.from(encode(text)).toString("hex");

/** A `Pong` with this item in a field that nobody knows. */
const pong = (item: string) => bytes(`a1${hex("Pong")}a2${hex("time")}05${hex("later")}${item}`);
const fields = (message: Uint8Array) => received(message).response.fields as unknown as Record<string, unknown>;

test("what is not well-formed is refused wherever it stands", () => {
  const garbage = [
    ["", "18", "1c", "1d", "1e", "1f", "3f", "df", "ff", "f800", "f81f", "fc", "fe"],
    ["41", "6261", "81", "9f", "9f01", "a1", "a101", "a16161", "bf6161ff", "bf6161ffff", "c0"],
    ["5f01ff", "5f6161ff", "7f4101ff", "5f5f4101ffff", "5f", "7f", "81ff", "a1ff", "a100ff"],
    ["1b0020000000000000", "3bffffffffffffffff", "9bffffffffffffffff", "5b001fffffffffffff"],
  ].flat();
  for (const item of garbage) {
    assert.throws(() => received(bytes(item)), item);
    assert.throws(() => received(pong(item)), item);
    assert.throws(() => received(pong(`81${item}`)), item);
  }
  assert.deepEqual(fields(pong("00")), { time: 5, later: 0 });
  assert.throws(() => received(bytes(`${Buffer.from(pong("00")).toString("hex")}00`)));
});

test("strings and containers of indefinite length are read wherever they stand", () => {
  const spellings: [string, unknown][] = [
    ["9f01ff", [1]],
    ["bf6161f5ff", { a: true }],
    ["7f61616162ff", "ab"],
    ["7fff", ""],
    ["5f41014102ff", new Uint8Array([1, 2])],
    ["5fff", new Uint8Array(0)],
    ["9f7f6161ff5f4101ffff", ["a", new Uint8Array([1])]],
    ["1b0000000000000007", 7],
  ];
  for (const [item, later] of spellings) assert.deepEqual(fields(pong(item)), { time: 5, later }, item);
  const long = new Uint8Array(300_000).fill(7);
  const chunk = Buffer.from(encode(long)).toString("hex");
  assert.deepEqual(fields(pong(`5f${chunk}${chunk}ff`))["later"], new Uint8Array(600_000).fill(7));
});

test("what is nested too deeply is refused, and the next message is read", () => {
  for (const level of ["81", "9f", "a16161", "bf6161", "c1", "d825"]) {
    assert.throws(() => received(bytes(level.repeat(200_000))), level);
    assert.throws(() => received(pong(`${level.repeat(200_000)}00`)), level);
    assert.equal(fields(pong("00"))["time"], 5);
  }
});

test("lengths are not believed", () => {
  const before = process.memoryUsage();
  for (const announced of ["5a7fffffff", "7a7fffffff", "9affffffff", "baffffffff", "9b001fffffffffffff", "5f5a7fffffff"]) {
    assert.throws(() => received(pong(announced)), announced);
    assert.throws(() => received(pong(`${announced}00`)), announced);
  }
  const after = process.memoryUsage();
  assert.ok(after.rss - before.rss < 256 << 20, `${after.rss - before.rss}`);
});

test("keys that stand twice are refused, however they are spelled", () => {
  const time = hex("time");
  for (const message of [
    `a1${hex("Pong")}a2${time}05${time}05`,
    `a1${hex("Pong")}a2${time}057f627469626d65ff06`,
    `a2${hex("Pong")}a1${time}05${hex("Pong")}a1${time}06`,
    `a1${hex("Pong")}a2${time}05${hex("later")}a2616100616101`,
  ]) {
    assert.throws(() => received(bytes(message)), message);
  }
});

test("keys that every object has are keys as any other", () => {
  const later = { __proto__: null, constructor: { prototype: { polluted: 1 } }, toString: 1 };
  const nasty = encode(new Map<string, unknown>([...Object.entries(later), ["__proto__", { polluted: 1 }]]));
  const read = fields(pong(Buffer.from(nasty).toString("hex")));
  assert.equal(Object.getPrototypeOf(read["later"]), Object.prototype);
  assert.equal(({} as Record<string, unknown>)["polluted"], undefined);
  const name = received(encode(new Map([["__proto__", { polluted: 1 }]]))).response.name as string;
  assert.equal(name, "__proto__");
});

test("fields of a wrong type are refused", () => {
  const id = new Uint8Array(16);
  const known = {
    Submitted: { subscription_id: id, publication_id: id, sequence: 1, duplicate: false, durability: "Synced" },
    Publication: { subscription_id: id, publication_id: id, sequence: 1, time: 1, data: id },
    LogIndex: { log_id: id, entries: [id], first_sequence: 1, last_sequence: 1, more: false },
    Welcome: { session_id: id, durable: true, resumed: true, subscriptions: [{ subscription_id: id, epoch: id, recovered: true }] },
    Error: { code: "internal", message: "", temporary: true },
  };
  const wrong: unknown[] = [undefined, null, 5, -1, 1.5, "text", true, id.subarray(1), { a: 1 }, [[5]], 2n ** 53n];
  let refused = 0;
  for (const [name, right] of Object.entries(known)) {
    received(encode({ [name]: right }));
    for (const [key, value] of Object.entries(right)) {
      const isBytes = value instanceof Uint8Array;
      for (const other of wrong) {
        const isRefused =
          (isBytes && !(key === "data" && other instanceof Uint8Array)) ||
          (typeof value === "boolean" && typeof other !== "boolean") ||
          (typeof other === "number" && (other < 0 || other % 1 !== 0)) ||
          typeof other === "bigint";
        if (!isRefused) continue;
        assert.throws(() => received(encode({ [name]: { ...right, [key]: other } })), `${name}: ${key}: ${String(other)}`);
        refused += 1;
      }
    }
  }
  assert.ok(refused > 100, `${refused}`);
});

test("what is no response is refused", () => {
  const messages: unknown[] = [
    [5, "Pong", [], {}, null, [1], [1, "Pong"], [1, { Pong: { time: 1 } }, 2]],
    [{ Pong: { time: 1 }, Gap: {} }, { Pong: 1 }, { Pong: [] }, { Pong: null }, new Map([[5, { time: 1 }]])],
    [new Map([["Pong", new Map([[5, 1]])]]), [-1, { Pong: { time: 1 } }], [1.5, { Pong: { time: 1 } }]],
  ].flat();
  for (const message of messages) assert.throws(() => received(encode(message)), JSON.stringify(message));
  for (const text of ["", "Pong", "16", "1000000000"]) assert.throws(() => decodeResponse(text), TypeError);
});

test("bytes that are read are no view of the message", () => {
  const message = Uint8Array.from(pong("4107")).buffer;
  const { later } = decodeResponse(message).response.fields as unknown as { later: Uint8Array };
  new Uint8Array(message).fill(0);
  assert.deepEqual(later, new Uint8Array([7]));
  assert.equal(later.buffer.byteLength, 1);
});

test("what CBOR has no word for can't be sent", () => {
  for (const name of [() => 1, Symbol("x")]) {
    assert.throws(() => encodeCommand("GetSubscription", { subscriptionId: name as never }));
  }
});
