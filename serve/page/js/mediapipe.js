// MediaPipe's PoseLandmarker in this browser: pictures never leave the machine. 13 MB of WebAssembly and 9 to 12 MB of model come
// from where this page lies when they are wanted, once; the browser keeps them.

import { ask } from "./endpoint.js";
import { Problem } from "./problems.js";
import { rooted } from "./skeleton.js";

const LIBRARY = "page/vendor/tasks-vision/vision_bundle.mjs";
const WASM = "page/vendor/tasks-vision/wasm";
/** MediaPipe's own model, and the one with the refiner inside, whose operators its GPU delegate cannot run. */
export const MODELS = {
  stock: { path: "page/pose_landmarker.task", what: "the pose model", gpu: true },
  refined: { path: "v1/refined.task", what: "the pose model with the refiner inside", gpu: false },
};
// a function that returns a vector: valid where WebAssembly has SIMD
const VECTOR = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]);
const ELSEWHERE = "take a current Firefox, Chrome, Edge or Safari";

/** "none", "real", or "played" by a program, which would be ten times slower and 24 mm off. */
export function graphics() {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) return "none";
  const extension = gl.getExtension("WEBGL_debug_renderer_info");
  const renderer = extension ? gl.getParameter(extension.UNMASKED_RENDERER_WEBGL) : gl.getParameter(gl.RENDERER);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|software|basic render|softpipe/i.test(renderer ?? "software") ? "played" : "real";
}

/** Loads the library and one of MODELS. `progress(share, what)` is told how far it is; returns something with `look`, `forget` and
 *  `close`. */
export async function openLandmarker(progress, model = MODELS.stock) {
  if (typeof WebAssembly !== "object") throw new Problem(`This browser has no WebAssembly, in which MediaPipe runs: ${ELSEWHERE}.`);
  const there = graphics(); // MediaPipe takes pictures in through WebGL, also where it computes on the processor
  if (there === "none") throw new Problem(`This browser has no WebGL, through which MediaPipe takes pictures: switch hardware acceleration on, or ${ELSEWHERE}.`);
  progress(0, "MediaPipe");
  let vision;
  try {
    vision = await import(new URL(LIBRARY, document.baseURI).href);
  } catch {
    throw new Problem("MediaPipe is not beside this page, or the network is away: run 'make page' where the page comes from, or try again.");
  }
  const bytes = await fetched(model.path, (share) => progress(0.6 * share, model.what));
  progress(0.6, "MediaPipe's program");
  const files = await vision.FilesetResolver.forVisionTasks(new URL(WASM, document.baseURI).href); // one without SIMD where that is not there
  progress(0.8, "MediaPipe's program");
  for (const delegate of model.gpu && there === "real" ? ["GPU", "CPU"] : ["CPU"]) {
    try {
      const landmarker = await vision.PoseLandmarker.createFromOptions(files, {
        baseOptions: { modelAssetBuffer: bytes.slice(), delegate }, runningMode: "VIDEO", numPoses: 1,
      });
      progress(1, "MediaPipe");
      return watching(landmarker, `${delegate}${WebAssembly.validate(VECTOR) ? "" : ", slowly, for this browser's WebAssembly has no SIMD"}`);
    } catch (error) {
      if (delegate === "CPU") throw new Problem(`MediaPipe does not start in this browser (${error?.message ?? error}): ${ELSEWHERE}.`);
    }
  }
  return null;
}

/** A landmarker whose model refines; `stock`, where it is given, says what MediaPipe alone would. */
export function refining(refined, stock) {
  return {
    delegate: refined.delegate,
    refines: true,
    look(...picture) {
      const before = stock?.look(...picture) ?? null;
      const seen = refined.look(...picture);
      return seen && { ...seen, pose: before?.pose ?? null, refined: rooted(seen.pose) };
    },
  };
}

function watching(landmarker, delegate) {
  // MediaPipe wants rising stamps, whatever is looked at next
  let [before, ahead] = [-1, 0];
  return {
    delegate,
    refines: false,
    /** A picture -> {pose, visibility, imagePoints} or null. `milliseconds` rise within a video. */
    look(source, width, height, milliseconds) {
      if (milliseconds + ahead <= before) ahead = before + 1000 - milliseconds;
      before = milliseconds + ahead;
      const seen = landmarker.detectForVideo(source, before);
      const world = seen.worldLandmarks[0];
      if (!world?.length) return null;
      return {
        pose: world.map(({ x, y, z }) => [x, y, z]), visibility: world.map((point) => point.visibility ?? 1),
        imagePoints: seen.landmarks[0].map(({ x, y }) => [x * width, y * height]),
      };
    },
    /** Whom it followed, and its filters: what is looked at next has nothing to do with that. */
    async forget() {
      if (before >= 0) await landmarker.setOptions({ numPoses: 1 }); // builds its graph anew
    },
    close: () => landmarker.close(),
  };
}

/** A file's bytes, its progress told as a share. */
async function fetched(path, progress) {
  const response = await ask(path);
  const total = Number(response.headers.get("content-length")) || 12e6;
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
