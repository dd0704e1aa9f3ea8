// Copies what the page needs of its packages into vendor/, each file packed beside itself: node vendor.mjs, after npm ci.

import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const PARTS = {
  three: ["build/three.module.min.js", "build/three.core.min.js", "LICENSE"],
  "@mediapipe/tasks-vision": [ // its program with SIMD, and without for browsers that have none
    "vision_bundle.mjs", ...["", "nosimd_"].flatMap((kind) => ["js", "wasm"].map((end) => `wasm/vision_wasm_${kind}internal.${end}`)),
  ],
};

rmSync("vendor", { recursive: true, force: true });
for (const [name, files] of Object.entries(PARTS)) {
  const to = `vendor/${name.split("/").at(-1)}`;
  mkdirSync(to, { recursive: true });
  for (const file of files) cpSync(`node_modules/${name}/${file}`, `${to}/${file.replace(/^build\//, "")}`);
}
for (const entry of readdirSync("vendor", { recursive: true })) {
  const path = `vendor/${entry}`;
  if (statSync(path).isFile() && /\.(js|mjs|wasm)$/.test(path)) writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }));
}
