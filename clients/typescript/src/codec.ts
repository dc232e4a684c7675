// Commands into bytes, bytes into responses: the one place that knows the spelling of the wire.
//
// What a server sends is checked field by field, so that the rest of the client can trust its types. Fields that are not known
// are ignored, and so are responses that are not: a later server may say more.

import { check, decode, encode } from "./cbor.js";
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

/** The message that carries a command, under a request id if there is one. */
export function encodeCommand<Name extends keyof Commands>(
  name: Name,
  fields: Commands[Name],
  id?: number,
): Uint8Array {
  const command = { [name]: wire(fields) };
  return encode(id === undefined ? command : [id, command]);
}

function wire(value: unknown): unknown {
  // Text of that form is a UUID wherever it stands.
  if (typeof value === "string") return isUuid(value) ? uuidBytes(value) : value;
  if (Array.isArray(value)) return value.map(wire);
  if (!isMap(value)) return value;
  const given = Object.entries(value).filter(([, field]) => field !== undefined);
  // The first letter of a variant's name (`After`) is no border.
  const snake = (key: string) => key.replace(/(?!^)[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(given.map(([key, field]) => [snake(key), wire(field)]));
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

// ---- Responses ----

/** What a field is, by its name, which means the same in every response. What is not here is a number, text or a map. */
const TYPES = new Map<string, string>();
for (const [type, names] of Object.entries({
  uuid: "subscription_id publication_id session_id log_id epoch dead_letter entries missing lost",
  bytes: "data",
  boolean: "durable resumed recovered duplicate more temporary",
})) {
  for (const name of names.split(" ")) TYPES.set(name, type);
}

function fieldsOf(wire: unknown): Record<string, unknown> {
  check(isMap(wire));
  const camel = (key: string) => key.replace(/_./g, (border) => border[1]!.toUpperCase());
  return Object.fromEntries(Object.entries(wire).map(([key, value]) => [camel(key), read(key, value)]));
}

function read(key: string, value: unknown): unknown {
  const type = TYPES.get(key);
  if (Array.isArray(value)) return value.map((item) => read(key, item));
  if (isMap(value)) {
    // A setting that names a subscription, and in a publication what tells where it comes from.
    check(!type || key === "dead_letter");
    return fieldsOf(value);
  }
  if (type === "uuid") {
    check(value instanceof Uint8Array && value.length === 16);
    return uuidText(value);
  }
  // There is no number in the protocol that is not natural.
  if (typeof value === "number") check(!type && Number.isSafeInteger(value) && value >= 0);
  else check(!type || (type === "bytes" ? value instanceof Uint8Array : typeof value === type));
  return value;
}

/** What a binary message of a server says. Throws if it is not exactly one response. */
export function decodeResponse(message: string | ArrayBuffer): Received {
  check(typeof message !== "string");
  let item: unknown = decode(new Uint8Array(message));
  let id: number | undefined;
  if (Array.isArray(item)) {
    check(item.length === 2);
    id = read("id", item[0]) as number;
    item = item[1];
  }
  check(isMap(item));
  const [name, ...more] = Object.keys(item);
  check(name && more.length === 0);
  return { id, response: { name, fields: fieldsOf(item[name]) } as unknown as Response };
}
