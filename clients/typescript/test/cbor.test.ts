// The client's own CBOR, held to a library's.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as library from "cborg";
import { decode, encode } from "../dist/cbor.js";
import { type Chance, chances } from "./support.js";

const LENGTHS = [0, 1, 2, 23, 24, 255, 256, 65_535, 65_536];
const NUMBERS = [0, 23, 24, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1];

/** What commands and responses are made of. */
function anything(chance: Chance, depth = 0): unknown {
  const few = () => Array.from({ length: chance.below(5) });
  const kinds = [
    () => chance.of(NUMBERS),
    () => chance.of([true, false, null]),
    () => "ä".repeat(chance.of(LENGTHS) / (depth + 1)),
    () => new Uint8Array(chance.of(LENGTHS) / (depth + 1)).fill(chance.below(256)),
    () => few().map(() => anything(chance, depth + 1)),
    () => Object.fromEntries(few().map(() => [`key ${chance.below(1000)}`, anything(chance, depth + 1)])),
  ];
  return chance.of(depth < 4 ? kinds : kinds.slice(0, 2))();
}

test("what the library writes is read, and what the library would write is written", () => {
  const chance = chances("cbor");
  for (let round = 0; round < 500; round++) {
    const value = anything(chance);
    const bytes = Uint8Array.from(library.encode(value, { mapSorter: null as never }));
    assert.deepEqual(encode(value), bytes);
    assert.deepEqual(decode(bytes), value);
  }
});

test("other spellings of the same are read", () => {
  const spellings: [string, unknown][] = [
    ["1b0000000000000007", 7],
    ["d82501", 1],
    ["20", -1],
    ["9f01ff", [1]],
    ["bf6161f5ff", { a: true }],
    ["7f61616162ff", "ab"],
    ["5f41014102ff", new Uint8Array([1, 2])],
    ["5fff", new Uint8Array(0)],
    ["f7", undefined],
    ["f8ff", undefined],
  ];
  for (const [hex, value] of spellings) assert.deepEqual(decode(Buffer.from(hex, "hex")), value, hex);
  for (const hex of ["f93c00", "fa3f800000", "fb3ff0000000000000"]) assert.equal(decode(Buffer.from(hex, "hex")), NaN, hex);
});

test("what is not well-formed is refused", () => {
  const garbage = [
    ["", "18", "1c", "1d", "1e", "1f", "3f", "df", "ff", "f800", "f81f", "fc", "fe", "0000"],
    ["41", "6261", "61ff", "81", "9f", "9f01", "a1", "a101", "bf01ff", "a2616100616101", "c0"],
    ["5f01ff", "5f6161ff", "7f4101ff", "5f5f4101ffff", "5f", "81ff", "a1ff", "a100ff"],
    ["1b0020000000000000", "3bffffffffffffffff", "9bffffffffffffffff", "5b001fffffffffffff"],
  ].flat();
  for (const hex of garbage) assert.throws(() => decode(Buffer.from(hex, "hex")), TypeError, hex);
  for (const value of [undefined, 1n, () => 1, Symbol("x")]) assert.throws(() => encode(value), TypeError);
});

test("bytes that are read are no view of the message", () => {
  const message = encode(new Uint8Array([7]));
  const read = decode(message) as Uint8Array;
  message.fill(0);
  assert.deepEqual(read, new Uint8Array([7]));
  assert.equal(read.buffer.byteLength, 1);
});
