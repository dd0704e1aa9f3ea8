// The page: puts sources, views, time line, chart and figures together.

import { Chart, depths } from "./chart.js";
import { frameRate, makeClip, MAX_FILE_BYTES, parseClip } from "./clip.js";
import { showDownloads } from "./downloads.js";
import * as endpoint from "./endpoint.js";
import { boneVariation, depthError, jitter, mean } from "./figures.js";
import { drawOverlay } from "./overlay.js";
import { Player } from "./player.js";
import { Problem, sentence } from "./problems.js";
import { JOINTS, rooted, spoken } from "./skeleton.js";
import { openCamera, openVideo, watchVideo } from "./watch.js";

const $ = (id) => document.getElementById(id);
const NAMES = ["mediapipe", "refined", "truth"];
const EXAMPLE = { landmarks: "page/clip/clip.json", video: "page/clip/clip.mp4" };

const state = { clip: null, poses: { mediapipe: null, refined: null, truth: null }, joint: JOINTS.indexOf("left_wrist"), live: null, landmarker: null, abort: null };
const chart = new Chart($("chart"));
const player = new Player((frame, time, playing) => showFrame(frame, time, playing));
let space = null;
let view3d = null;

// ---- what is said ----------------------------------------------------------------------------------------------------

function say(text = "", share = null) {
  $("status").textContent = text;
  $("progress").hidden = share === null;
  if (share !== null) $("progress").value = share;
  $("cancel").hidden = !state.abort;
}

function complain(error, byServer = null) {
  $("problem").hidden = !error;
  if (!error) return;
  $("problem").querySelector("p").textContent = sentence(error);
  $("by-server").hidden = !byServer;
  $("by-server").onclick = byServer;
  if (error instanceof endpoint.TokenWanted) $("token-form").hidden = false;
  if (!(error instanceof Problem)) console.error(error);
}

/** Runs what somebody asked for; what goes wrong is said, and the page goes on. */
async function doing(work, byServer = null) {
  complain(null);
  try {
    await work();
  } catch (error) {
    complain(error, byServer);
  }
  say();
}

// ---- what is shown ---------------------------------------------------------------------------------------------------

function colours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries([...NAMES, "grid"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function shown() {
  return Object.fromEntries(NAMES.map((name) => [name, $(`show-${name}`).checked]));
}

/** Takes a clip, all of it refined, as what is shown. */
async function show(clip, { play = false } = {}) {
  state.clip = clip;
  prepare();
  const video = clip.video ? $("video") : null;
  $("video").hidden = !clip.video;
  $("no-picture").hidden = Boolean(clip.video || clip.imagePoints);
  $("scrub").min = clip.seconds[0] ?? 0;
  $("scrub").max = clip.seconds.at(-1) ?? 1;
  player.load(clip.seconds, video);
  showDownloads($("downloads"), $("no-downloads"), clip, (error) => complain(error));
  if (clip.cut) say(clip.cut);
  player.seek(clip.seconds[0] ?? 0);
  if (play && !matchMedia("(prefers-reduced-motion: reduce)").matches) player.play();
}

/** Poses about the hips, figures and chart of the clip as it is now. */
function prepare() {
  const { clip } = state;
  const about = (list) => list?.map((pose) => (pose ? rooted(pose) : null)) ?? null;
  state.poses = { truth: about(clip.truth), mediapipe: about(clip.poses), refined: about(clip.refined) };
  document.querySelector(".legend .truth").hidden = !clip.truth;
  showFigures();
  drawChart();
  const lowest = (state.poses.refined ?? state.poses.mediapipe ?? []).filter(Boolean).map((pose) => Math.max(pose[15][1], pose[16][1]));
  if (lowest.length) space?.floor([...lowest].sort((a, b) => a - b)[Math.floor(lowest.length * 0.8)] + 0.07);
}

function showFigures() {
  const { clip, poses } = state;
  const cells = (id, before, after) => {
    const row = $(id).querySelectorAll("td");
    [before, after].forEach((text, i) => { row[i].textContent = text; });
  };
  const both = (id, measure, form) => cells(id, ...["mediapipe", "refined"].map((name) => {
    const value = poses[name] ? measure(poses[name]) : NaN;
    return Number.isNaN(value) ? "–" : form(value);
  }));
  const percent = (value) => `${(value * 100).toFixed(1)} %`;
  both("bone-cv", boneVariation, percent);
  both("jitter", (list) => jitter(list, clip.seconds), (value) => value.toFixed(1));
  $("depth-error").hidden = !clip.truth;
  both("depth-error", (list) => depthError(list, poses.truth), (value) => value.toFixed(1));
  const confidence = clip.confidence ? mean(clip.confidence) : NaN;
  cells("confidence", "–", Number.isNaN(confidence) ? "–" : `${(confidence * 100).toFixed(0)} %`);
  const seen = (poses.mediapipe ?? poses.refined ?? []).filter(Boolean).length;
  $("frames").textContent = `${clip.name}: ${seen} of ${clip.seconds.length} frames show a person, ${frameRate(clip.seconds).toFixed(0)} a second.`;
}

function drawChart() {
  const { clip, poses, joint } = state;
  if (!clip) return;
  chart.draw(depths(poses, joint), clip.seconds, spoken(JOINTS[joint]));
  chart.at(player.time);
}

function showFrame(frame, time, playing) {
  const { clip, poses, joint } = state;
  if (!clip) return;
  $("play").classList.toggle("playing", playing);
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  $("scrub").value = time;
  $("scrub").setAttribute("aria-valuetext", `${time.toFixed(2)} seconds`);
  $("time").textContent = `${(time - (clip.seconds[0] ?? 0)).toFixed(2)} s`;
  const show3d = shown();
  const confidence = clip.confidence?.[frame] ?? null;
  const of = (name) => (show3d[name] ? poses[name]?.[frame] ?? null : null);
  space?.show({ mediapipe: of("mediapipe"), refined: of("refined"), truth: of("truth"), confidence }, joint);
  drawOverlay($("overlay"), {
    imagePoints: clip.imagePoints?.[frame], visibility: clip.visibility?.[frame], refined: poses.refined?.[frame], confidence, size: clip.size,
  }, show3d, colours(), joint);
  chart.at(time);
}

const again = () => showFrame(player.frame, player.time, player.playing);

function showModel(model, runtime = "") {
  $("model").hidden = !model;
  $("model").textContent = model ? `model ${model.name}, version ${model.version}${runtime ? `, ${runtime}` : ""}` : "";
}

// ---- where it comes from ---------------------------------------------------------------------------------------------

async function refined(clip) {
  if (clip.poses && !clip.refined) {
    say("The server refines the poses…");
    Object.assign(clip, await endpoint.refine(clip, frameRate(clip.seconds)));
  }
  if (clip.model) showModel(clip.model);
  return clip;
}

function current(button) {
  state.live?.stop();
  state.live = null;
  state.abort?.abort();
  state.abort = null;
  for (const id of ["example", "open"]) $(id).classList.toggle("current", id === button);
  $("webcam").setAttribute("aria-pressed", String(button === "webcam"));
  $("webcam").textContent = button === "webcam" ? "Stop the webcam" : "Webcam";
  $("latency").textContent = "";
}

async function example() {
  current("example");
  const [response] = await Promise.all([fetch(EXAMPLE.landmarks), openVideo($("video"), EXAMPLE.video, "the example")
    .catch(() => { $("video").removeAttribute("src"); })]);
  if (!response.ok) throw new Problem("The example is not among this server's files: open a file of your own.");
  const clip = parseClip(await response.text(), "Example");
  if ($("video").getAttribute("src")) clip.video = EXAMPLE.video;
  await show(await refined(clip), { play: true });
}

async function landmarker() {
  if (!state.landmarker) {
    const { openLandmarker } = await import("./mediapipe.js");
    state.landmarker = openLandmarker((share, what) => say(`Loading ${what}…`, share));
    state.landmarker.catch(() => { state.landmarker = null; });
  }
  return state.landmarker;
}

async function openFile(file) {
  current("open");
  if (/\.(json|csv|txt)$/i.test(file.name) || /json|csv/.test(file.type)) {
    if (file.size > MAX_FILE_BYTES) throw new Problem(`${file.name} has more than ${MAX_FILE_BYTES / 1e6} MB: take 'refiner video' for long clips.`);
    const clip = parseClip(await file.text(), file.name);
    $("video").removeAttribute("src");
    return show(await refined(clip));
  }
  const url = URL.createObjectURL(file);
  await openVideo($("video"), url, file.name);
  $("video").hidden = false;
  const eye = await landmarker();
  state.abort = new AbortController();
  const clip = await watchVideo($("video"), eye, file.name, (share) => say(`MediaPipe (${eye.delegate}) looks at ${file.name}…`, share), state.abort.signal);
  state.abort = null;
  return show(await refined(clip), { play: true });
}

async function byServer(file) {
  current("open");
  state.abort = new AbortController();
  say(`The server looks at ${file.name}: the whole video is sent to it…`);
  const answer = await endpoint.refineVideo(file, state.abort.signal);
  state.abort = null;
  const clip = parseClip(JSON.stringify(answer), file.name);
  $("video").removeAttribute("src");
  return show(clip);
}

function open(file) {
  const isVideo = !/\.(json|csv|txt)$/i.test(file.name);
  doing(() => openFile(file), isVideo ? () => doing(() => byServer(file)) : null);
}

async function webcam() {
  if (state.live) {
    const { clip } = state.live;
    current("");
    if (clip.seconds.length) await show(clip);
    return;
  }
  current("webcam");
  try {
    const eye = await landmarker();
    const { Live } = await import("./live.js");
    player.load([], null); // which pauses the element that the camera is about to take
    const camera = await openCamera($("video"));
    $("video").hidden = false;
    $("no-picture").hidden = true;
    state.clip = makeClip({ name: "webcam", seconds: [], size: camera.size });
    prepare();
    again();
    state.live = new Live($("video"), camera, eye, {
      frame: (clip, latency) => showLive(clip, latency, eye.delegate), status: (text) => say(text), model: showModel,
    });
    camera.onEnd(() => { if (state.live) doing(async () => { await webcam(); throw new Problem("The camera was taken away: connect it and switch the webcam on again."); }); });
  } catch (error) {
    current("");
    throw error;
  }
}

let prepared = 0;

function showLive(clip, latency, delegate) {
  if (!state.live) return;
  state.clip = clip;
  const now = performance.now();
  const last = clip.seconds.length - 1;
  if (now - prepared > 500) { // figures and chart twice a second are enough
    prepared = now;
    prepare();
    $("scrub").min = clip.seconds[0];
    $("scrub").max = clip.seconds[last];
    $("latency").textContent = `${latency.toFixed(0)} ms from picture to pose, MediaPipe on the ${delegate}`;
  } else for (const [name, list] of [["mediapipe", clip.poses], ["refined", clip.refined]]) {
    state.poses[name] = [...(state.poses[name] ?? []).slice(-last), rooted(list[last])];
    while (state.poses[name].length <= last) state.poses[name].unshift(null);
  }
  showFrame(last, clip.seconds[last], true);
}

// ---- wiring ----------------------------------------------------------------------------------------------------------

function wire() {
  $("example").onclick = () => doing(example);
  $("open").onclick = () => $("file").click();
  $("file").onchange = () => { if ($("file").files[0]) open($("file").files[0]); $("file").value = ""; };
  $("webcam").onclick = () => doing(webcam);
  $("cancel").onclick = () => state.abort?.abort();
  $("play").onclick = () => (player.playing ? player.pause() : player.play());
  $("scrub").oninput = () => { player.pause(); player.seek(Number($("scrub").value)); };
  $("scrub").onkeydown = (event) => {
    const frames = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!frames) return;
    event.preventDefault();
    player.step(frames);
  };
  for (const name of NAMES) $(`show-${name}`).onchange = again;
  $("joint").append(...JOINTS.map((joint, i) => new Option(spoken(joint), i, i === state.joint, i === state.joint)));
  $("joint").onchange = () => { state.joint = Number($("joint").value); drawChart(); again(); };
  for (const button of document.querySelectorAll("[data-view]")) button.onclick = () => space?.look(button.dataset.view);
  $("token-form").onsubmit = (event) => {
    event.preventDefault();
    endpoint.token.set($("token").value);
    $("token-form").hidden = true;
    start();
  };
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === " " && event.target === document.body) { event.preventDefault(); $("play").click(); }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { space?.recolour(colours()); again(); });
  new ResizeObserver(() => { drawChart(); again(); }).observe($("chart"));
}

async function openSpace() {
  try {
    view3d ??= await import("./view3d.js");
    space = new view3d.View3D($("space"), colours());
  } catch (error) {
    $("no-space").hidden = false;
    $("no-space").textContent = sentence(error);
    $("space").hidden = true;
  }
}

async function start() {
  await doing(async () => {
    const [about] = await Promise.all([endpoint.info(), space ? null : openSpace()]);
    showModel(about.model, about.runtime);
    await example();
  });
}

wire();
start();
