// What is shown: a motion as MediaPipe saw it and as it became. Made from a file that somebody drops.

import { Problem } from "./problems.js";
import { JOINTS, LANDMARKS, rooted } from "./skeleton.js";

export const MAX_FILE_BYTES = 60e6;
const FPS = 30;

/** A clip of F frames; lists have one entry for each, null where nobody was seen. */
export function makeClip({ name, seconds, poses = null, visibility = null, imagePoints = null, refined = null,
                           confidence = null, truth = null, size = null, video = null, model = null }) {
  return { name, seconds, poses, visibility, imagePoints, refined, confidence, truth, size, video, model };
}

/** Frames a second, from the median distance of the moments. */
export function frameRate(seconds) {
  const steps = seconds.slice(1).map((value, i) => value - seconds[i]).filter((step) => step > 0).sort((a, b) => a - b);
  return steps.length ? 1 / steps[Math.floor(steps.length / 2)] : FPS;
}

/** The text of a landmarks file or a result -> a clip. Takes what `POST /v1/refine` takes and gives, the JSON and CSV of
 *  `refiner video --to`, and results of MediaPipe's PoseLandmarker written frame by frame. */
export function parseClip(text, name) {
  if (/^\s*frame,time_s,/.test(text)) return fromCsv(text, name);
  let content;
  try {
    content = JSON.parse(text);
  } catch {
    throw new Problem(`${name} is neither JSON nor a CSV of 'refiner video': drop a video, or landmarks as /docs describes them.`);
  }
  if (Array.isArray(content)) return fromResults(content, name);
  if (Array.isArray(content?.frames)) return fromExport(content, name);
  if (content?.poses) return fromRequest(content, name);
  if (content?.refined) return fromAnswer(content, name);
  throw new Problem(`${name} holds no poses: it is to have "poses", "refined" or "frames" (see /docs).`);
}

function fromRequest(content, name) {
  const poses = checked(content.poses, 3, name, "poses");
  const rows = poses.length;
  const side = (key, width) => (content[key] == null ? null : checked(content[key], width, name, key, rows));
  const fps = content.fps > 0 ? content.fps : FPS;
  return makeClip({
    name, poses, seconds: poses.map((_, i) => i / fps), visibility: side("visibility", 0), imagePoints: side("image_points", 2),
    truth: side("truth", 3), size: content.size ?? null, refined: side("refined", 3)?.map(rooted) ?? null,
    confidence: side("confidence", 0), model: content.model ?? null,
  });
}

function fromAnswer(content, name) {
  const refined = checked(content.refined, 3, name, "refined").map(rooted);
  const stamps = content.timestamp_us;
  return makeClip({
    name, refined, seconds: refined.map((_, i) => (stamps ? stamps[i] / 1e6 : i / FPS)), model: content.model ?? null,
    confidence: content.confidence == null ? null : checked(content.confidence, 0, name, "confidence", refined.length),
  });
}

/** `refiner video --to json`: metres in the room, y up, z towards the camera. */
function fromExport(content, name) {
  if (!content.frames.length) throw new Problem(`${name} has no frames.`);
  const poses = checked(content.frames.map((frame) => frame?.pose), 3, name, "frames");
  return makeClip({
    name, refined: poses.map((pose) => rooted(fromRoom(pose))),
    seconds: content.frames.map((frame, i) => frame.time_s ?? i / (content.fps || FPS)),
    confidence: content.frames.every((frame) => Array.isArray(frame.confidence)) ? content.frames.map((frame) => frame.confidence) : null,
  });
}

function fromCsv(text, name) {
  const [head, ...lines] = text.trim().split(/\r?\n/).map((line) => line.split(","));
  const column = (joint, part) => head.indexOf(`${joint}_${part}`);
  if (column("nose", "x_m") < 0 || !lines.length) throw new Problem(`${name} has no columns of joints: write it with 'refiner video --to csv'.`);
  const value = (line, joint, part) => Number(line[column(joint, part)]);
  const poses = lines.map((line) => JOINTS.map((joint) => ["x_m", "y_m", "z_m"].map((part) => value(line, joint, part))));
  return makeClip({
    name, refined: checked(poses, 3, name, "rows").map((pose) => rooted(fromRoom(pose))),
    seconds: lines.map((line) => Number(line[1])),
    confidence: lines.map((line) => JOINTS.map((joint) => value(line, joint, "confidence"))),
  });
}

/** MediaPipe's own results, one for each frame: {worldLandmarks: [[{x, y, z, visibility}]], timestamp?}. */
function fromResults(frames, name) {
  const of = (frame, ...keys) => keys.map((key) => frame?.[key]).find(Boolean)?.[0] ?? null;
  const world = frames.map((frame) => of(frame, "worldLandmarks", "pose_world_landmarks", "world_landmarks"));
  if (!world.some(Boolean)) throw new Problem(`${name} holds no world landmarks: write worldLandmarks, not landmarks, of each frame.`);
  const seen = world.map((points) => points?.map(({ x, y, z }) => [x, y, z]) ?? null);
  checked(seen.filter(Boolean), 3, name, "worldLandmarks");
  return makeClip({
    name, poses: seen, visibility: world.map((points) => points?.map((point) => point.visibility ?? 1) ?? null),
    seconds: frames.map((frame, i) => (frame?.timestamp ?? (i * 1000) / FPS) / 1000),
  });
}

const fromRoom = (pose) => pose.map(([x, y, z]) => [x, -y, -z]);

/** Lists of 17 or 33 points of so many numbers (0: a number each), all finite, or a sentence. */
function checked(rows, width, name, key, count = rows?.length) {
  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
  const isPoint = (point) => (width ? Array.isArray(point) && point.length === width && point.every(isNumber) : isNumber(point));
  if (!Array.isArray(rows) || !rows.length) throw new Problem(`"${key}" in ${name} must be a list with an entry for each frame.`);
  if (rows.length !== count) throw new Problem(`"${key}" in ${name} has ${rows.length} entries for ${count} frames.`);
  const joints = rows[0]?.length;
  if (joints !== JOINTS.length && joints !== LANDMARKS) throw new Problem(`"${key}" in ${name} has ${joints ?? "no"} joints: it must have ${JOINTS.length} or ${LANDMARKS}.`);
  const wrong = rows.findIndex((row) => !Array.isArray(row) || row.length !== joints || !row.every(isPoint));
  if (wrong >= 0) throw new Problem(`"${key}" in ${name} is not complete in frame ${wrong}: every joint wants ${width || 1} finite numbers.`);
  return rows;
}
