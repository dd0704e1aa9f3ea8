// MediaPipe's PoseLandmarker in this browser: pictures never leave the machine. 13 MB of WebAssembly and 9 MB of model come
// from this server when they are wanted, once; the browser keeps them.

import { Problem } from "./problems.js";

const PARTS = { library: "page/vendor/tasks-vision/vision_bundle.mjs", wasm: "page/vendor/tasks-vision/wasm", model: "page/pose_landmarker.task" };

/** Whether this browser can run it, or a sentence why not. */
export function reasonAgainst() {
  if (typeof WebAssembly !== "object") return "This browser has no WebAssembly: take a current Firefox, Chrome, Edge or Safari, or let the server look at the video.";
  // a function that returns a vector: valid where SIMD is there
  const simd = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]);
  if (!WebAssembly.validate(simd)) return "This browser's WebAssembly has no SIMD: take a current Firefox, Chrome, Edge or Safari, or let the server look at the video.";
  return "";
}

/** Graphics of a real card, not of a program that plays one: that would be ten times slower and 24 mm off. */
export function realGraphics() {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) return false;
  const extension = gl.getExtension("WEBGL_debug_renderer_info");
  const renderer = extension ? gl.getParameter(extension.UNMASKED_RENDERER_WEBGL) : gl.getParameter(gl.RENDERER);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !/swiftshader|llvmpipe|software|basic render|softpipe/i.test(renderer ?? "software");
}

/** Loads the library and a model. `progress(share, what)` is told how far it is; returns something with `look` and `close`. */
export async function openLandmarker(progress, model = PARTS.model) {
  const against = reasonAgainst();
  if (against) throw new Problem(against);
  progress(0, "MediaPipe");
  let vision;
  try {
    vision = await import(new URL(PARTS.library, document.baseURI).href);
  } catch {
    throw new Problem("MediaPipe is not among this server's files: run 'make page' there, or let the server look at the video.");
  }
  const bytes = await fetched(model, (share) => progress(0.6 * share, "the pose model"));
  progress(0.6, "MediaPipe's program");
  const files = await vision.FilesetResolver.forVisionTasks(new URL(PARTS.wasm, document.baseURI).href);
  progress(0.8, "MediaPipe's program");
  const delegates = realGraphics() ? ["GPU", "CPU"] : ["CPU"];
  for (const delegate of delegates) {
    try {
      const landmarker = await vision.PoseLandmarker.createFromOptions(files, {
        baseOptions: { modelAssetBuffer: bytes.slice(), delegate }, runningMode: "VIDEO", numPoses: 1,
      });
      progress(1, "MediaPipe");
      return watching(landmarker, delegate);
    } catch (error) {
      if (delegate === "CPU") throw new Problem(`MediaPipe does not start in this browser (${error?.message ?? error}): let the server look at the video.`);
    }
  }
  return null;
}

function watching(landmarker, delegate) {
  let last = -1;
  return {
    delegate,
    /** A picture -> {pose, visibility, imagePoints} or null. `milliseconds` rise. */
    look(source, width, height, milliseconds) {
      last = Math.max(Math.round(milliseconds), last + 1);
      const seen = landmarker.detectForVideo(source, last);
      const world = seen.worldLandmarks[0];
      if (!world?.length) return null;
      return {
        pose: world.map(({ x, y, z }) => [x, y, z]), visibility: world.map((point) => point.visibility ?? 1),
        imagePoints: seen.landmarks[0].map(({ x, y }) => [x * width, y * height]),
      };
    },
    close: () => landmarker.close(),
  };
}

/** A file's bytes, its progress told as a share. */
async function fetched(path, progress) {
  const response = await fetch(path);
  if (!response.ok) {
    const { problemOf } = await import("./problems.js");
    throw await problemOf(response);
  }
  const total = Number(response.headers.get("content-length")) || 9e6;
  const parts = [];
  let have = 0;
  for await (const part of chunks(response.body)) {
    parts.push(part);
    have += part.length;
    progress(Math.min(have / total, 1));
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function* chunks(body) {
  const reader = body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
}
