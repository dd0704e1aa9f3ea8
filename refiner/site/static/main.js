// The page: a video or the webcam through MediaPipe, whose model file has the refiner inside.
import { FilesetResolver, PoseLandmarker } from "./mediapipe/vision_bundle.mjs";
import { drawBones, fit, seenFrom } from "./view.js";

const FILES = { refined: "refined.task", mediapipe: "mediapipe.task" };
const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const { compare, file, overlay, progress, space, status, video, webcam } = element;

const landmarkers = {}; // by name; made when they are wanted
const latest = {}; // by name: what each said of the newest frame
let runtime = null, shown = 0, lastTime = -1, stamp = 0, yaw = Math.PI / 2, address = null;

const say = (sentence) => { status.textContent = sentence; };
const colour = (name) => getComputedStyle(document.querySelector(`span.${name}`)).color; // as the legend has it
const still = document.createElement("canvas"); // the frame that was looked at: the video goes on meanwhile

/** A file of this folder, with its progress shown. */
async function fetched(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} is missing beside this page (HTTP ${response.status})`);
  const total = Number(response.headers.get("Content-Length")) || 1e7, parts = [];
  let received = 0;
  progress.hidden = false;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    received += value.length;
    progress.value = Math.min(received / total, 1);
  }
  progress.hidden = true;
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** The landmarker of one of FILES. The CPU: on software GPUs its answers are off by centimetres, and slow. */
async function landmarker(name) {
  if (!landmarkers[name]) {
    say("Loading MediaPipe and its model, once …");
    landmarkers[name] = (async () => {
      runtime ??= FilesetResolver.forVisionTasks("./mediapipe/wasm");
      const options = { baseOptions: { modelAssetBuffer: await fetched(FILES[name]), delegate: "CPU" }, runningMode: "VIDEO" };
      return PoseLandmarker.createFromOptions(await runtime, options);
    })();
    landmarkers[name].catch(() => { delete landmarkers[name]; runtime = null; }); // a second try may have the network back
  }
  return landmarkers[name];
}

function draw() {
  const picture = fit(overlay), room = fit(space);
  picture.drawImage(still, 0, 0, overlay.width, overlay.height);
  for (const [name, seen] of Object.entries(latest)) {
    if (!seen.worldLandmarks.length) continue;
    const connections = PoseLandmarker.POSE_CONNECTIONS, width = 3 * devicePixelRatio;
    drawBones(room, seenFrom(seen.worldLandmarks[0], yaw, space.width), connections, colour(name), width);
    if (name === "refined") {
      const points = seen.landmarks[0].map(({ x, y }) => ({ x: x * overlay.width, y: y * overlay.height }));
      drawBones(picture, points, connections, colour(name), width);
    }
  }
}

/** Looks at frame after frame, until something else is shown: `mine` is the number of what it looks at. */
async function loop(mine) {
  try {
    if (!document.hidden && video.readyState >= 2 && video.currentTime !== lastTime) {
      const names = compare.checked ? ["refined", "mediapipe"] : ["refined"];
      const ready = await Promise.all(names.map(landmarker));
      if (mine !== shown) return;
      lastTime = video.currentTime;
      stamp = Math.max(stamp + 1, Math.round(performance.now())); // MediaPipe wants rising milliseconds, also when a video starts again
      if (!compare.checked) delete latest.mediapipe;
      Object.assign(still, { width: video.videoWidth, height: video.videoHeight });
      still.getContext("2d").drawImage(video, 0, 0);
      names.forEach((name, number) => { latest[name] = ready[number].detectForVideo(still, stamp); });
      say(latest.refined.worldLandmarks.length ? "Running on this machine's CPU." : "Nobody is seen in this frame.");
      draw();
    }
  } catch (error) {
    if (mine !== shown) return;
    video.pause();
    say(`MediaPipe does not run in this browser (${error.message ?? error}): it needs WebAssembly; try a current Chrome, Firefox or Safari.`);
    return;
  }
  if (mine === shown) requestAnimationFrame(() => loop(mine));
}

async function play() {
  const mine = ++shown;
  lastTime = -1;
  try {
    await video.play();
  } catch (error) {
    if (mine === shown) say("This browser cannot decode that video: convert it to MP4 (H.264), or use 'refiner video'.");
    return;
  }
  if (mine === shown) requestAnimationFrame(() => loop(mine));
}

function stopWebcam() {
  shown += 1;
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  webcam.setAttribute("aria-pressed", "false");
}

async function open(chosen) {
  stopWebcam();
  if (address) URL.revokeObjectURL(address);
  address = video.src = URL.createObjectURL(chosen);
  await play();
}

webcam.addEventListener("click", async () => {
  if (video.srcObject) return stopWebcam();
  try {
    if (!navigator.mediaDevices) throw new DOMException("", "InsecureContext");
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
    video.removeAttribute("src");
    video.srcObject = stream;
    webcam.setAttribute("aria-pressed", "true");
    await play();
  } catch (error) {
    say({
      NotAllowedError: "The webcam was not permitted: allow it in the address bar, then try again.",
      NotFoundError: "There is no webcam: plug one in, or open a video.",
      InsecureContext: "Webcams need https, or this machine's own address: open a video instead.",
    }[error.name] ?? `The webcam does not start (${error.message}): close what else uses it, or open a video.`);
  }
});
file.addEventListener("change", () => file.files[0] && open(file.files[0]));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});
space.addEventListener("pointermove", (event) => {
  if (!event.buttons) return;
  yaw += event.movementX / 100;
  draw();
});
space.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -0.1, ArrowRight: 0.1 }[event.key];
  if (!step) return;
  event.preventDefault();
  yaw += step;
  draw();
});
