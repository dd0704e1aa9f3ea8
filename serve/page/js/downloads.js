// What can be taken away: the formats that the server writes.

import { exported, formats } from "./endpoint.js";
import { frameRate } from "./clip.js";
import { Problem } from "./problems.js";

/** Buttons for a clip. `complain(error)` says what went wrong. */
export async function showDownloads(list, nothing, clip, complain) {
  list.replaceChildren();
  nothing.hidden = Boolean(clip.refined);
  if (!clip.refined) return;
  let known;
  try {
    known = await formats();
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
        save(await exported(format, motion(clip)), `${fileName(clip.name)}.${format}`);
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
  return {
    name: fileName(clip.name), fps: frameRate(clip.seconds), refined: part(clip.refined), confidence: part(clip.confidence) ?? undefined,
    timestamp_us: rows.map((i) => Math.round((clip.seconds[i] - start) * 1e6)), image_points: part(clip.imagePoints) ?? undefined,
    visibility: part(clip.visibility) ?? undefined, size: clip.size?.map(Math.round) ?? undefined,
  };
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
