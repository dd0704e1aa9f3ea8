// The server's routes. Nothing here speaks to any other origin.

import { Problem, problemOf } from "./problems.js";

const TOKEN = "pose-token";
// Frames that a request carries, and what it shares with the next on either side: as serve/client.py cuts clips.
const PART = 2048;

/** The token that the endpoint wants, kept for this tab. */
export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value) => sessionStorage.setItem(TOKEN, value.trim()),
};

export class TokenWanted extends Problem {
  constructor() {
    super(token.get() ? "This token is not accepted: check it, and enter it again." : "This endpoint wants a token: ask whoever runs it for one.");
  }
}

const authorization = () => (token.get() ? { Authorization: `Bearer ${token.get()}` } : {});

/** A path of the server, with the token; raises Problem where it is refused. */
export async function ask(path, options = {}) {
  return checked(await fetch(path, { ...options, headers: { ...options.headers, ...authorization() } }));
}

async function checked(response) {
  if (response.status === 401) throw new TokenWanted();
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** Name, version, runtime … of what answers; null where a plain web host hands out this page and nothing answers. */
export async function info() {
  const response = await fetch("info", { headers: authorization() });
  const isJson = /json/.test(response.headers.get("content-type") ?? "");
  if (!isJson && (response.ok || response.status === 404)) return null;
  return (await checked(response)).json();
}

/** Refines a clip as one sequence; frames without a person are left out. Returns {refined, confidence, model} for each frame. */
export async function refine(clip, fps) {
  const rows = clip.poses.flatMap((pose, i) => (pose ? [i] : []));
  if (!rows.length) throw new Problem("Nobody is seen in any frame: film a person from head to foot.");
  if (rows.length > PART) throw new Problem(`The clip has ${rows.length} frames, and this page sends ${PART}: take 'refiner video' for longer ones.`);
  const part = (list) => list && rows.map((i) => list[i]);
  const body = { poses: part(clip.poses), visibility: part(clip.visibility), image_points: part(clip.imagePoints), sequence: true, fps };
  const response = await ask("v1/refine", {
    method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body, (key, value) => (typeof value === "number" ? Math.round(value * 1e5) / 1e5 : value ?? undefined)),
  });
  const answer = await response.json();
  const spread = (list) => {
    const all = clip.poses.map(() => null);
    rows.forEach((row, i) => { all[row] = list[i]; });
    return all;
  };
  return { refined: spread(answer.refined), confidence: spread(answer.confidence), model: answer.model };
}

/** A video through the server's MediaPipe. Returns its answer as it is. */
export async function refineVideo(file, signal) {
  return (await ask("v1/refine/video", { method: "POST", body: file, signal, headers: { "Content-Type": "application/octet-stream" } })).json();
}

/** The formats that the server can write: {bvh: "for animation …", …}. */
export async function formats() {
  return (await ask("v1/formats")).json();
}

/** A motion as a file of one of them. */
export async function exported(format, motion) {
  const response = await ask(`v1/export?to=${encodeURIComponent(format)}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(motion),
  });
  return response.blob();
}
