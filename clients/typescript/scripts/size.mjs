// The size of the client with its CBOR codec, as a page would load it: bundled, minified, compressed. Fails above the limit.

import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const LIMIT = 14_000;

const { outputFiles } = await build({
  entryPoints: [new URL("../dist/index.js", import.meta.url).pathname],
  bundle: true,
  minify: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  write: false,
});
const [{ contents }] = outputFiles;
const size = gzipSync(contents, { level: 9 }).length;
console.log(`${contents.length} bytes minified, ${size} with gzip; the limit is ${LIMIT}`);
if (size > LIMIT) process.exitCode = 1;
