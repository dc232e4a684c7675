// The size of the client with its CBOR, as a page loads it: one file, minified, compressed. Fails above the limit.

import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const LIMIT = 14_000;

const contents = await readFile(new URL("../dist/infotainer.min.js", import.meta.url));
const size = gzipSync(contents, { level: 9 }).length;
console.log(`${contents.length} bytes minified, ${size} with gzip; the limit is ${LIMIT}`);
if (size > LIMIT) process.exitCode = 1;
