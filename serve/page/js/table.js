// The figures before and after.

import { frameRate } from "./clip.js";
import { boneVariation, depthError, jitter, mean } from "./figures.js";

const $ = (id) => document.getElementById(id);

/** Fills the table of a clip, whose `poses` are about the hips: {mediapipe, refined, truth}. */
export function showFigures(clip, poses) {
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
  $("confidence").hidden = Number.isNaN(confidence);
  cells("confidence", "–", Number.isNaN(confidence) ? "–" : `${(confidence * 100).toFixed(0)} %`);
  const seen = clip.seconds.filter((_, i) => poses.mediapipe?.[i] || poses.refined?.[i]).length;
  $("frames").textContent = !clip.seconds.length ? "" : `${clip.name}: ${seen} of ${clip.seconds.length} frames show a person, ${frameRate(clip.seconds).toFixed(0)} a second.`;
}
