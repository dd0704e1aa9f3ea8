// The page: puts sources, views, time line, chart and figures together.

import { Chart, depths } from "./chart.js";
import { frameRate, makeClip, MAX_FILE_BYTES, parseClip } from "./clip.js";
import { showDownloads } from "./downloads.js";
import * as endpoint from "./endpoint.js";
import { Eyes } from "./eyes.js";
import { drawOverlay } from "./overlay.js";
import { nearest, Player } from "./player.js";
import { Problem, sentence } from "./problems.js";
import { JOINTS, rooted, spoken } from "./skeleton.js";
import { showFigures } from "./table.js";
import { openCamera, openVideo, watchVideo, wholeVideo } from "./watch.js";

const $ = (id) => document.getElementById(id);
const NAMES = ["mediapipe", "refined", "truth"];
const EXAMPLE = { landmarks: "page/clip/clip.json", video: "page/clip/clip.mp4" };

/** Something else was asked for: nobody waits for this any more. */
class Left extends Error {}

// source: how what is shown is opened again; turn: the number of what was asked for last
const state = {
  clip: null, poses: { mediapipe: null, refined: null, truth: null }, joint: JOINTS.indexOf("left_wrist"),
  live: null, abort: null, hasServer: true, model: null, source: null, turn: 0,
};
const eyes = new Eyes((share, what) => say(`Loading ${what}…`, share));
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
    if (error instanceof Left) return;
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
  showDownloads($("downloads"), $("no-downloads"), clip, state.hasServer, (error) => complain(error));
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
  $("scale").hidden = !clip.confidence?.some(Boolean);
  showFigures(clip, state.poses);
  drawChart();
  const lowest = (state.poses.refined ?? state.poses.mediapipe ?? []).filter(Boolean).map((pose) => Math.max(pose[15][1], pose[16][1]));
  if (lowest.length) space?.floor([...lowest].sort((a, b) => a - b)[Math.floor(lowest.length * 0.8)] + 0.07);
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

const redraw = () => showFrame(player.frame, player.time, player.playing);

function showModel(model, runtime = "") {
  state.model = model;
  $("model").hidden = !model;
  $("model").textContent = model ? `model ${model.name}, version ${model.version}${runtime ? `, ${runtime}` : ""}` : "";
}

// ---- where it comes from ---------------------------------------------------------------------------------------------

async function refined(clip) {
  if (clip.poses && !clip.refined) {
    if (!state.hasServer) {
      await show(clip);
      throw new Problem(`${clip.name} holds landmarks, which a server refines, and this page has none: open the video, which is refined here, or a result.`);
    }
    say("The server refines the poses…");
    const { turn } = state;
    Object.assign(clip, await endpoint.refine(clip, frameRate(clip.seconds)));
    stillWanted(turn);
  }
  if (clip.model) showModel(clip.model);
  return clip;
}

/** Raises Left where something else was asked for meanwhile. */
function stillWanted(turn) {
  if (turn !== state.turn) throw new Left();
}

function current(button) {
  state.turn += 1;
  player.pause(); // or it would seek in the video that is looked at
  state.live?.stop();
  state.live = null;
  state.abort?.abort();
  state.abort = null;
  for (const id of ["example", "open"]) $(id).classList.toggle("current", id === button);
  $("webcam").setAttribute("aria-pressed", String(button === "webcam"));
  $("webcam").textContent = button === "webcam" ? "Stop the webcam" : "Webcam";
  $("latency").textContent = "";
}

async function exampleClip() {
  const response = await fetch(EXAMPLE.landmarks);
  if (!response.ok) throw new Problem("The example is not beside this page: open a file of your own.");
  return parseClip(await response.text(), "Example");
}

async function exampleVideo() {
  const address = await wholeVideo(EXAMPLE.video);
  await openVideo($("video"), address, "the example", otherwise());
  return address;
}

/** The example, whose landmarks are here: refined by the server, or beforehand where there is none. */
async function example() {
  current("example");
  state.source = exampleAnew;
  const [clip, video] = await Promise.all([exampleClip(), exampleVideo().catch(() => null)]); // a browser without H.264
  clip.video = video;
  await show(await refined(clip), { play: true });
}

/** The example as the switch has it: here, its video is looked at. */
async function exampleAnew() {
  if (!inBrowser()) return example();
  current("example");
  state.source = exampleAnew;
  const [{ truth, seconds, size }] = await Promise.all([exampleClip(), exampleVideo()]);
  const clip = await watched("Example");
  return show({ ...clip, truth: clip.seconds.map((time) => truth[nearest(seconds, time)]), size }, { play: true });
}

const otherwise = () => (state.hasServer ? "let the server look at it, which knows more kinds of video" : "convert it to MP4 (H.264), or take 'refiner video'");
const inBrowser = () => $("in-browser").checked;

/** What the video element shows, looked at frame by frame. */
async function watched(name) {
  const { turn } = state;
  $("video").hidden = false;
  const looking = await eyes.open({ refines: inBrowser(), beside: $("stock").checked });
  stillWanted(turn);
  state.abort = new AbortController();
  const { signal } = state.abort;
  const tell = (share) => { if (!signal.aborted) say(`MediaPipe on the ${looking.delegate} looks at ${name}…`, share); };
  const clip = await watchVideo($("video"), looking, name, tell, signal);
  stillWanted(turn);
  state.abort = null;
  if (looking.refines) clip.model = state.model;
  if (!clip.poses.some(Boolean) && !clip.refined?.some(Boolean)) throw new Problem(`Nobody is seen in ${name}: film a person from head to foot.`);
  return clip;
}

const nothingYet = (name, size) => { state.clip = makeClip({ name, seconds: [], size }); prepare(); redraw(); };

async function openFile(file) {
  current("open");
  state.source = () => openFile(file);
  if (/\.(json|csv|txt)$/i.test(file.name) || /json|csv/.test(file.type)) {
    if (file.size > MAX_FILE_BYTES) throw new Problem(`${file.name} has more than ${MAX_FILE_BYTES / 1e6} MB: take 'refiner video' for long clips.`);
    const clip = parseClip(await file.text(), file.name);
    $("video").removeAttribute("src");
    return show(await refined(clip));
  }
  const url = URL.createObjectURL(file);
  await openVideo($("video"), url, file.name, otherwise());
  player.load([], null);
  nothingYet(file.name, [$("video").videoWidth, $("video").videoHeight]); // not the former clip's skeleton on this picture
  return show(await refined(await watched(file.name)), { play: true });
}

async function byServer(file) {
  current("open");
  state.abort = new AbortController();
  say(`The server looks at ${file.name}: the whole video is sent to it…`);
  const answer = await endpoint.refineVideo(file, state.abort.signal);
  state.abort = null;
  const clip = parseClip(JSON.stringify(answer), file.name);
  clip.cut ||= answer.notes.join("; ");
  $("video").removeAttribute("src");
  return show(clip);
}

function open(file) {
  const isVideo = !/\.(json|csv|txt)$/i.test(file.name);
  doing(() => openFile(file), isVideo && state.hasServer ? () => doing(() => byServer(file)) : null);
}

async function webcam() {
  if (state.live) {
    const { clip } = state.live;
    current("");
    if (clip.seconds.length) await show(clip);
    return;
  }
  current("webcam");
  state.source = null;
  try {
    const { turn } = state;
    const looking = await eyes.open({ refines: inBrowser(), beside: $("stock").checked });
    stillWanted(turn);
    const { Live } = await import("./live.js");
    player.load([], null); // which pauses the element that the camera is about to take
    const camera = await openCamera($("video"));
    [$("video").hidden, $("no-picture").hidden] = [false, true];
    nothingYet("webcam", camera.size);
    state.live = new Live($("video"), camera, looking, {
      frame: (clip, latency) => showLive(clip, latency, looking.delegate), status: (text) => say(text), model: showModel,
      failed: (error) => doing(async () => { await webcam(); throw error; }),
    });
    camera.onEnd(() => { if (state.live) doing(async () => { await webcam(); throw new Problem("The camera was taken away: connect it and switch the webcam on again."); }); });
  } catch (error) {
    if (!(error instanceof Left)) current("");
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
    state.poses[name] = [...(state.poses[name] ?? []).slice(-last), list[last] && rooted(list[last])];
    while (state.poses[name].length <= last) state.poses[name].unshift(null);
  }
  showFrame(last, clip.seconds[last], true);
}

// ---- where it is refined ---------------------------------------------------------------------------------------------

/** Says where, and whether there is a choice. */
function showWhere() {
  const here = inBrowser();
  $("beside").hidden = !here;
  $("hint").textContent = !state.hasServer
    ? "This page has no server: MediaPipe's model with the refiner inside runs in this browser, and nothing leaves it. The example was refined beforehand; press it again to see it done here, or drop a video or a result anywhere."
    : `Or drop a video, landmarks or a result anywhere. ${here
      ? "MediaPipe's model with the refiner inside runs in this browser: nothing leaves it, frames stand for themselves, and there is no confidence."
      : "Pictures stay in this browser; only landmarks travel."}`;
}

/** What is shown is opened once more, as the switch is now. */
function anew() {
  doing(async () => {
    if (!state.live) return state.source?.();
    await webcam();
    return webcam();
  });
}

/** Nothing answers beside this page: what it does without that stays. */
function goAlone() {
  state.hasServer = false;
  [$("in-browser").checked, $("in-browser").disabled, $("documents").hidden] = [true, true, true];
  $("no-downloads").textContent = "There is nothing to download yet.";
}

// ---- wiring ----------------------------------------------------------------------------------------------------------

function wire() {
  $("example").onclick = () => doing(exampleAnew);
  $("open").onclick = () => $("file").click();
  $("file").onchange = () => { if ($("file").files[0]) open($("file").files[0]); $("file").value = ""; };
  $("webcam").onclick = () => doing(webcam);
  $("in-browser").onchange = () => { showWhere(); anew(); };
  $("stock").onchange = anew;
  $("cancel").onclick = () => state.abort?.abort();
  $("play").onclick = () => (player.playing ? player.pause() : player.play());
  $("scrub").oninput = () => { const to = Number($("scrub").value); player.pause(); player.seek(to); }; // pausing sets it back
  $("scrub").onkeydown = (event) => {
    const frames = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!frames) return;
    event.preventDefault();
    player.step(frames);
  };
  for (const name of NAMES) $(`show-${name}`).onchange = redraw;
  $("joint").append(...JOINTS.map((joint, i) => new Option(spoken(joint), i, i === state.joint, i === state.joint)));
  $("joint").onchange = () => { state.joint = Number($("joint").value); drawChart(); redraw(); };
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
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { space?.recolour(colours()); redraw(); });
  new ResizeObserver(() => { drawChart(); redraw(); }).observe($("chart"));
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
    if (about) showModel(about.model, about.runtime);
    else goAlone();
    showWhere();
    await example();
  });
}

wire();
start();
