// What can be taken away.

import { exported, formats } from "./endpoint.js";
import { frameRate } from "./clip.js";
import { Problem } from "./problems.js";

const ALONE = { json: "as the endpoint answers; this page reads it, too" };

/** Buttons for a clip: the formats that the server writes, or where there is none what this page can. `complain(error)` says what
 *  went wrong. */
export async function showDownloads(list, nothing, clip, hasServer, complain) {
  list.replaceChildren();
  nothing.hidden = Boolean(clip.refined);
  if (!clip.refined) return;
  let known;
  try {
    known = hasServer ? await formats() : ALONE;
  } catch (error) {
    nothing.hidden = false;
    nothing.textContent = error instanceof Problem ? error.message : "The server cannot be reached.";
    return;
  }
  list.replaceChildren(...Object.entries(known).map(([format, purpose]) => {
    const [item, button] = [document.createElement("li"), document.createElement("button")];
    [button.type, button.textContent, button.title] = ["button", format, purpose];
    button.setAttribute("aria-label", `Download as ${format.toUpperCase()}, ${purpose}`);
    button.onclick = async () => {
      button.disabled = true;
      try {
        save(hasServer ? await exported(format, motion(clip)) : answer(clip), `${fileName(clip.name)}.${format}`);
        complain(null);
      } catch (error) {
        complain(error);
      }
      button.disabled = false;
    };
    item.append(button);
    return item;
  }));
}

/** What `POST /v1/export` takes: the frames with a person. */
export function motion(clip) {
  const rows = clip.refined.flatMap((pose, i) => (pose ? [i] : []));
  const part = (list) => list && rows.map((i) => list[i]);
  const start = clip.seconds[0] ?? 0;
  const confidence = part(clip.confidence); // none where the browser refined
  return {
    name: fileName(clip.name), fps: frameRate(clip.seconds), refined: part(clip.refined), confidence: confidence?.every(Boolean) ? confidence : undefined,
    timestamp_us: rows.map((i) => Math.round((clip.seconds[i] - start) * 1e6)), image_points: part(clip.imagePoints) ?? undefined,
    visibility: part(clip.visibility) ?? undefined, size: clip.size?.map(Math.round) ?? undefined,
  };
}

/** The motion as the endpoint would answer it. */
export function answer(clip) {
  const { refined, confidence, timestamp_us } = motion(clip);
  return new Blob([JSON.stringify({ refined, confidence, timestamp_us, model: clip.model ?? undefined })], { type: "application/json" });
}

/** "My clip (1).mp4" -> "My-clip-1". */
export function fileName(name) {
  return name.replace(/\.[a-z0-9]{2,4}$/i, "").replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "pose";
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
