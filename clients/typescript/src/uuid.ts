// UUIDs: text and bytes, those that a client makes, and those that names stand for.
//
// Browsers have no SHA-1 that answers at once, and none at all on pages that did not come over TLS; so it is here. It names
// things, and protects nothing.

import type { SubscriptionReference, Uuid } from "./protocol.js";

const FORM = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const NAMESPACE = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";

const encoder = new TextEncoder();

/** UTF-8. */
export const textBytes = (text: string): Uint8Array => encoder.encode(text);

/** Whether `text` has the 36 characters of a UUID. */
export function isUuid(text: string): boolean {
  return FORM.test(text);
}

/** The text form of 16 bytes. */
export function uuidText(bytes: Uint8Array): Uuid {
  let text = "";
  for (const byte of bytes) text += (byte + 256).toString(16).slice(1);
  return text.replace(/(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** The 16 bytes of a UUID, given its text form. */
export function uuidBytes(text: Uuid): Uint8Array {
  return Uint8Array.from(text.match(/[^-]{2}/g)!, (digits) => parseInt(digits, 16));
}

/** The UUID of a subscription, which a name stands for too (version 5, protocol, section 2). */
export function subscriptionId(reference: SubscriptionReference): Uuid {
  if (isUuid(reference)) return reference.toLowerCase();
  return versioned(sha1([...uuidBytes(NAMESPACE), ...textBytes(`infotainer:${reference}`)]), 5);
}

/** A new session id: a secret of 122 random bits (version 4) that the application keeps. */
export function newSession(): Uuid {
  return versioned(random(), 4);
}

/** A new publication id: version 7, so that ids sort by their time. */
export function newPublicationId(): Uuid {
  const bytes = random();
  bytes.set(uuidBytes(Date.now().toString(16).padStart(12, "0")));
  return versioned(bytes, 7);
}

function random(): Uint8Array {
  return globalThis.crypto.getRandomValues(new Uint8Array(16));
}

/** The UUID of `version` with what else is in 16 bytes. */
function versioned(bytes: Uint8Array, version: number): Uuid {
  bytes[6] = (bytes[6]! & 0x0f) | (version << 4);
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return uuidText(bytes);
}

/** The first 16 bytes of the hash (RFC 3174). */
function sha1(message: number[]): Uint8Array {
  const { length } = message;
  const blocks = new DataView(new ArrayBuffer(((length + 72) >> 6) << 6));
  [...message, 0x80].forEach((byte, at) => blocks.setUint8(at, byte));
  blocks.setUint32(blocks.byteLength - 4, length * 8);
  const hash = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0] as [number, number, number, number, number];
  const words: number[] = [];
  const rotated = (word: number, bits: number) => (word << bits) | (word >>> (32 - bits));
  for (let block = 0; block < blocks.byteLength; block += 64) {
    let [a, b, c, d, e] = hash;
    for (let t = 0; t < 80; t++) {
      const word = (words[t] =
        t < 16
          ? blocks.getInt32(block + 4 * t)
          : rotated(words[t - 3]! ^ words[t - 8]! ^ words[t - 14]! ^ words[t - 16]!, 1));
      const mixed =
        t < 20
          ? (d ^ (b & (c ^ d))) + 0x5a827999
          : t < 40
            ? (b ^ c ^ d) + 0x6ed9eba1
            : t < 60
              ? ((b & c) | (d & (b | c))) + 0x8f1bbcdc
              : (b ^ c ^ d) + 0xca62c1d6;
      [a, b, c, d, e] = [(rotated(a, 5) + mixed + e + word) | 0, a, rotated(b, 30), c, d];
    }
    [a, b, c, d, e].forEach((word, at) => (hash[at]! += word));
  }
  hash.forEach((word, at) => blocks.setInt32(4 * at, word));
  return new Uint8Array(blocks.buffer, 0, 16);
}
