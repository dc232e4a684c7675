// Commands into bytes, bytes into responses: the one place that knows CBOR and the spelling of the wire.
//
// What a server sends is checked field by field, so that the rest of the client can trust its types. Fields that are not known
// are ignored, and so are responses that are not: a later server may say more.

import { decode, encode, Token, Tokenizer, Type } from "cborg";
import type { Commands, Responses } from "./protocol.js";
import { isUuid, uuidBytes, uuidText } from "./uuid.js";

/** A response with its name. */
export type Response = { [Name in keyof Responses]: { name: Name; fields: Responses[Name] } }[keyof Responses];

/** A message of a server. Its name may be one that this client does not know. */
export interface Received {
  id: number | undefined;
  response: Response;
}

// ---- Commands ----

// Fields stay in the order in which they stand in the command.
const ENCODING = { mapSorter: null as never };

/** The message that carries a command, under a request id if there is one. */
export function encodeCommand<Name extends keyof Commands>(
  name: Name,
  fields: Commands[Name],
  id?: number,
): Uint8Array {
  const command = { [name]: wire(fields) };
  return encode(id === undefined ? command : [id, command], ENCODING);
}

function wire(value: unknown): unknown {
  // Text of that form is a UUID wherever it stands.
  if (typeof value === "string") return isUuid(value) ? uuidBytes(value) : value;
  if (Array.isArray(value)) return value.map(wire);
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return value;
  const given = Object.entries(value).filter(([, field]) => field !== undefined);
  // The first letter of a variant's name (`After`) is no border.
  const snake = (key: string) => key.replace(/(?!^)[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(given.map(([key, field]) => [snake(key), wire(field)]));
}

// ---- Responses ----

const INDEFINITE_BYTES = 0x5f;
const INDEFINITE_TEXT = 0x7f;

/** cborg's, which also joins the chunks of strings of indefinite length. */
class Chunks extends Tokenizer {
  override next(): Token {
    const head = this.data[this._pos];
    if (head !== INDEFINITE_BYTES && head !== INDEFINITE_TEXT) return super.next();
    const type = head === INDEFINITE_TEXT ? Type.string : Type.bytes;
    const joined: any[] = [];
    this._pos++;
    for (let chunk; (chunk = super.next()).type !== Type.break; ) {
      check(chunk.type === type);
      for (const part of chunk.value) joined.push(part);
    }
    return new Token(type, type === Type.string ? joined.join("") : Uint8Array.from(joined), 0);
  }
}

// What a field is, by its name, which means the same in every response. What is not here is a number, text or a map.
const UUIDS = /^((subscription|publication|session|log)_id|epoch|dead_letter|entries|missing|lost)$/;
const BOOLEANS = /^(durable|resumed|recovered|duplicate|more|temporary)$/;

function check(isRight: unknown): asserts isRight {
  if (!isRight) throw new TypeError("not a response");
}

function fieldsOf(wire: unknown): Record<string, unknown> {
  check(wire instanceof Map);
  const camel = (key: string) => key.replace(/_./g, (border) => border[1]!.toUpperCase());
  return Object.fromEntries([...wire].map(([key, value]) => [camel(key), read(key, value)]));
}

function read(key: string, value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => read(key, item));
  const isMap = value instanceof Map;
  // A setting that names a subscription, and in a publication what tells where it comes from.
  if (UUIDS.test(key) && !(isMap && key === "dead_letter")) {
    check(value instanceof Uint8Array && value.length === 16);
    return uuidText(value);
  }
  const type = typeof value;
  check(key !== "data" || value instanceof Uint8Array);
  check(!BOOLEANS.test(key) || type === "boolean");
  // There is no number in the protocol that is not natural, and a symbol is what cborg gives where a break stands for a value.
  check(type === "number" ? Number.isSafeInteger(value) && (value as number) >= 0 : type !== "symbol");
  return isMap ? fieldsOf(value) : value;
}

/** What a message of a server says. Throws if it is not exactly one response. */
export function decodeResponse(data: string | ArrayBuffer): Received {
  check(typeof data !== "string");
  const message = new Uint8Array(data);
  // In a `Map` no key means anything, as `__proto__` would. Integers beyond 2^53 are refused: `allowBigInt` is for the tokenizer to know.
  const item: unknown = decode(message, { rejectDuplicateMapKeys: true, useMaps: true, tokenizer: new Chunks(message) });
  const pair = Array.isArray(item) ? item : [undefined, item];
  const [id, response] = pair;
  check(pair.length === 2 && response instanceof Map && response.size === 1);
  const [[name, fields]] = response as never as [[unknown, unknown]];
  check(typeof name === "string");
  return { id: read("id", id) as number | undefined, response: { name, fields: fieldsOf(fields) } as unknown as Response };
}
