// From moving pictures to landmarks: a video file frame by frame, or the webcam live. All of it in this browser.

import { makeClip } from "./clip.js";
import { cameraProblem, Problem } from "./problems.js";

const FPS = 30;
export const MOST_FRAMES = 1800; // of a video: a minute at 30 a second
// A picture is shown so soon after it was sought, or so many in a row are not told: then nothing composes the page.
const [SHOWN_MS, SILENT] = [300, 3];

/** A video that lies beside this page, whole: plain web hosts hand out no parts of a file, without which a browser cannot seek. */
export async function wholeVideo(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Problem("The example's video is not beside this page: open a file of your own.");
  return URL.createObjectURL(await response.blob());
}

/** Shows a video file; raises Problem where the browser cannot decode it, with what to do `otherwise`. */
export async function openVideo(element, url, name, otherwise) {
  element.srcObject = null;
  element.src = url;
  element.load();
  await new Promise((resolve, reject) => {
    element.onloadeddata = resolve;
    element.onerror = () => reject(new Problem(`This browser cannot play ${name}: ${otherwise}.`));
  });
  if (!element.videoWidth) throw new Problem(`${name} has no picture that this browser can show: ${otherwise}.`);
}

/** Looks at every picture of a video, of fast ones at 30 a second. `progress(share)` is told how far it is; `signal` ends it early,
 *  with what there is. */
export async function watchVideo(element, landmarker, name, progress, signal) {
  const size = [element.videoWidth, element.videoHeight];
  const length = Math.min(element.duration || 0, MOST_FRAMES / FPS);
  const count = Math.max(1, Math.floor(length * FPS));
  const clip = makeClip({ name, seconds: [], poses: [], visibility: [], imagePoints: [], refined: landmarker.refines ? [] : null, size, video: element.src });
  element.pause();
  const momentAt = seeker(element);
  for (let i = 0; i < count && !signal.aborted; i += 1) {
    if (document.hidden) await shown(); // browsers hold a video's pictures back in the background
    const seconds = (await momentAt((i + 0.25) / FPS)) ?? i / FPS;
    progress((i + 1) / count);
    if (seconds <= clip.seconds.at(-1)) continue; // of fewer pictures a second: this one was looked at
    const seen = landmarker.look(element, ...size, seconds * 1000);
    clip.seconds.push(seconds);
    clip.poses.push(seen?.pose ?? null);
    clip.visibility.push(seen?.visibility ?? null);
    clip.imagePoints.push(seen?.imagePoints ?? null);
    clip.refined?.push(seen?.refined ?? null);
  }
  if (element.duration > length + 1) clip.cut = `Only the first ${Math.round(length)} s were looked at: take 'refiner video' for longer ones.`;
  return clip;
}

function shown() {
  return new Promise((resolve) => {
    const look = () => { if (!document.hidden) { document.removeEventListener("visibilitychange", look); resolve(); } };
    document.addEventListener("visibilitychange", look);
  });
}

/** Returns a function that seeks to a time and gives the moment of the picture shown there, seconds; null where the browser does
 *  not say it. */
function seeker(element) {
  let silent = element.requestVideoFrameCallback ? 0 : SILENT;
  return async (time) => {
    if (silent === SILENT) {
      await seeked(element, time);
      return null;
    }
    const shows = new Promise((resolve) => { element.requestVideoFrameCallback((now, { mediaTime }) => resolve(mediaTime)); });
    await seeked(element, time);
    const moment = await Promise.race([shows, new Promise((resolve) => { setTimeout(resolve, SHOWN_MS, null); })]);
    silent = moment === null ? silent + 1 : 0;
    return moment;
  };
}

function seeked(element, time) {
  return new Promise((resolve) => {
    element.addEventListener("seeked", () => resolve(), { once: true });
    element.currentTime = time;
    setTimeout(resolve, 3000); // a picture that never comes costs itself
  });
}

/** The webcam's picture on a video element; returns what stops it. */
export async function openCamera(element) {
  if (!navigator.mediaDevices?.getUserMedia) throw cameraProblem({ name: "SecurityError" });
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } }, audio: false });
  } catch (error) {
    throw cameraProblem(error);
  }
  element.removeAttribute("src");
  element.srcObject = stream;
  await element.play();
  return {
    size: [element.videoWidth, element.videoHeight],
    onEnd: (tell) => stream.getVideoTracks()[0].addEventListener("ended", tell),
    stop: () => { stream.getTracks().forEach((track) => track.stop()); element.srcObject = null; },
  };
}

/** Calls `look(milliseconds)` for each new picture of a video, while the tab is seen, until it throws, which `failed` is told;
 *  returns what ends it. (A callback for each video frame would do the same, but ends with the first one where nothing composes the
 *  page.) */
export function eachPicture(element, look, failed) {
  let ended = false;
  let last = -1;
  const turn = (now) => {
    if (ended) return;
    if (!document.hidden && element.readyState > 1 && element.currentTime !== last) {
      last = element.currentTime;
      try {
        look(now);
      } catch (error) {
        failed(error);
        return;
      }
    }
    requestAnimationFrame(turn);
  };
  requestAnimationFrame(turn);
  return () => { ended = true; };
}

/** The last seconds of a live stream as a clip that grows at its end and is forgotten at its beginning. */
export class Recording {
  constructor(size, seconds = 20) {
    this.clip = makeClip({ name: "webcam", seconds: [], poses: [], visibility: [], imagePoints: [], refined: [], confidence: [], size });
    this.length = seconds;
  }

  add(seconds, seen, answer) {
    const { clip } = this;
    clip.seconds.push(seconds);
    clip.poses.push(seen.pose);
    clip.visibility.push(seen.visibility);
    clip.imagePoints.push(seen.imagePoints);
    clip.refined.push(answer.refined);
    clip.confidence.push(answer.confidence);
    while (clip.seconds.at(-1) - clip.seconds[0] > this.length) {
      for (const list of [clip.seconds, clip.poses, clip.visibility, clip.imagePoints, clip.refined, clip.confidence]) list.shift();
    }
  }
}
