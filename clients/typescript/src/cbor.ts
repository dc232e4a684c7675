// CBOR (RFC 8949), as much of it as the protocol needs: what commands are made of into bytes, any well-formed item into values.
//
// A library for all of it would be half of what a page loads. The tests hold this one to the vectors, and to such a library.

const NATURAL = 0;
const NEGATIVE = 1;
const BYTES = 2;
const TEXT = 3;
const ARRAY = 4;
const MAP = 5;
const TAG = 6;
const SIMPLE = 7;

/** The argument of what is of indefinite length, and the byte that ends it. */
const INDEFINITE = 31;
const BREAK = 0xff;

const SIMPLES = [false, true, null];
const FALSE = 0xf4;
const DOUBLE = 0xfb;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** UTF-8. */
export const textBytes = (text: string): Uint8Array => encoder.encode(text);

/** The item that holds `value`, in the shortest form, with maps in the order of their fields. */
export function encode(value: unknown): Uint8Array {
  const parts: ArrayLike<number>[] = [];
  write(value, parts);
  return joined(parts);
}

function write(value: unknown, parts: ArrayLike<number>[]): void {
  if (typeof value === "string" || value instanceof Uint8Array) {
    const isText = typeof value === "string";
    const bytes = isText ? textBytes(value) : value;
    parts.push(head(isText ? TEXT : BYTES, bytes.length), bytes);
  } else if (Array.isArray(value)) {
    parts.push(head(ARRAY, value.length));
    for (const item of value) write(item, parts);
  } else if (typeof value === "number") {
    parts.push(Number.isSafeInteger(value) && value >= 0 ? head(NATURAL, value) : double(value));
  } else if (typeof value === "boolean" || value === null) {
    parts.push([FALSE + SIMPLES.indexOf(value)]);
  } else if (typeof value === "object") {
    const fields = Object.entries(value);
    parts.push(head(MAP, fields.length));
    for (const field of fields.flat()) write(field, parts);
  } else {
    throw new TypeError(`${typeof value} can't be sent`);
  }
}

/** A major type, and a number below 2^53. */
function head(type: number, argument: number): number[] {
  if (argument < 24) return [(type << 5) | argument];
  const power = [1, 2, 4, 8].findIndex((width) => argument < 256 ** width);
  const bytes = [(type << 5) | (24 + power)];
  for (let at = 2 ** power; at-- > 0; ) bytes.push(Math.floor(argument / 256 ** at) % 256);
  return bytes;
}

/** There is no such number in the protocol; the server refuses it. */
function double(value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(9));
  view.setUint8(0, DOUBLE);
  view.setFloat64(1, value);
  return new Uint8Array(view.buffer);
}

function joined(parts: ArrayLike<number>[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/**
 * What the one item in `bytes` holds. Tags are passed over, and floats are `NaN`: nothing in the protocol is one. Throws if it is not
 * well-formed, if a map has a key twice, or if an integer is beyond 2^53.
 */
export function decode(bytes: Uint8Array): unknown {
  const reader = new Reader(bytes);
  const item = reader.item();
  check(reader.isAtEnd);
  return item;
}

class Reader {
  #at = 0;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** The next item, which is of `type` and of definite length if that is said. */
  item(wanted?: number): unknown {
    const first = this.#take(1)[0]!;
    const type = first >> 5;
    const info = first & 31;
    check(wanted === undefined || (type === wanted && info !== INDEFINITE));
    if (type === SIMPLE) return this.#simple(info);
    const isIndefinite = info === INDEFINITE;
    check(!isIndefinite || (type >= BYTES && type <= MAP));
    const argument = isIndefinite ? Infinity : this.#argument(info);
    switch (type) {
      case NATURAL:
        return argument;
      case NEGATIVE:
        return -1 - argument;
      case BYTES:
        return isIndefinite ? joined(this.#items(argument, type) as Uint8Array[]) : this.#take(argument).slice();
      case TEXT:
        return isIndefinite ? this.#items(argument, type).join("") : decoder.decode(this.#take(argument));
      case ARRAY:
        return this.#items(argument);
      case MAP:
        return this.#map(argument);
      default:
        check(type === TAG);
        return this.item();
    }
  }

  #take(length: number): Uint8Array {
    const from = this.#at;
    this.#at += length;
    check(this.#at <= this.#bytes.length);
    return this.#bytes.subarray(from, this.#at);
  }

  #argument(info: number): number {
    if (info < 24) return info;
    check(info < 28);
    const argument = this.#take(2 ** (info - 24)).reduce((number, byte) => number * 256 + byte, 0);
    check(Number.isSafeInteger(argument));
    return argument;
  }

  #simple(info: number): unknown {
    if (info < 24) return SIMPLES[info - (FALSE & 31)];
    check(info < 28);
    const [value] = this.#take(2 ** (info - 24));
    if (info > 24) return NaN;
    // Those below have a shorter form, and no longer one.
    check(value! >= 32);
    return undefined;
  }

  /** Whether what is of indefinite length ends here. */
  #ends(): boolean {
    const ends = this.#bytes[this.#at] === BREAK;
    if (ends) this.#at += 1;
    return ends;
  }

  #items(count: number, type?: number): unknown[] {
    const items: unknown[] = [];
    while (items.length < count && !(count === Infinity && this.#ends())) items.push(this.item(type));
    return items;
  }

  #map(count: number): Record<string, unknown> {
    const fields = new Map<string, unknown>();
    while (fields.size < count && !(count === Infinity && this.#ends())) {
      const key = String(this.item());
      check(!fields.has(key));
      fields.set(key, this.item());
    }
    return Object.fromEntries(fields);
  }
}

/** Refuses what comes unless it is right. */
export function check(isRight: unknown): asserts isRight {
  if (!isRight) throw new TypeError("not a response");
}
