// The client with its CBOR as the one file that a page loads: `dist/infotainer.min.js`, and beside it the licence of what is in it.

import { copyFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { minify } from "terser";

const here = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));

const { outputFiles } = await build({
  entryPoints: [here("dist/index.js")],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  // cborg looks for these to be faster in Node. A page has none, nor needs the code for them: 0.15 kB with gzip.
  define: { "globalThis.process": "undefined", "globalThis.Buffer": "undefined" },
  // Its one warning is about sorting, which it is not asked for; the client says nothing there.
  drop: ["console"],
  write: false,
});
// What esbuild leaves: constants, and functions that are called once. With gzip, that is 0.3 kB. No getter here or in cborg does anything
// but get.
const { code } = await minify(outputFiles[0].text, {
  module: true,
  ecma: 2022,
  compress: { ecma: 2022, passes: 4, sequences: false, lhs_constants: false, pure_getters: true, keep_fargs: false },
});
await writeFile(here("dist/infotainer.min.js"), code);
await copyFile(here("node_modules/cborg/LICENSE"), here("dist/cborg.LICENSE"));
