// Copies what the page needs of its packages into vendor/, each file packed beside itself: node vendor.mjs, after npm ci.

import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const PARTS = {
  three: ["build/three.module.min.js", "build/three.core.min.js", "LICENSE"],
  "@mediapipe/tasks-vision": ["vision_bundle.mjs", "wasm"],
};

rmSync("vendor", { recursive: true, force: true });
for (const [name, files] of Object.entries(PARTS)) {
  const to = `vendor/${name.split("/").at(-1)}`;
  mkdirSync(to, { recursive: true });
  for (const file of files) cpSync(`node_modules/${name}/${file}`, `${to}/${file.split("/").at(-1)}`, { recursive: true });
}
for (const entry of readdirSync("vendor", { recursive: true })) {
  const path = `vendor/${entry}`;
  if (statSync(path).isFile() && /\.(js|mjs|wasm)$/.test(path)) writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }));
}
