// The webcam: pictures into landmarks here; these into refined poses on the server, newest first, or here as well.

import { token } from "./endpoint.js";
import { Stream } from "./stream.js";
import { eachPicture, Recording } from "./watch.js";

/** Runs until `stop`. `on`: {frame(clip, latencyMs), status(sentence), model(model), failed(error)}. */
export class Live {
  #ends = []; #sent = new Map(); #stream; #recording; #nobody = 0; #on;

  constructor(element, camera, landmarker, on) {
    this.#on = on;
    this.#recording = new Recording(camera.size);
    this.#stream = landmarker.refines ? null : new Stream({
      answer: (answer) => this.#answered(answer),
      model: on.model,
      problem: (sentence) => on.status(sentence),
      state: (state, reason) => on.status(state === "open" ? "" : `The connection is lost${reason ? ` (${reason})` : ""}: it is tried again.`),
    }, token.get());
    const seen = () => { if (!document.hidden) this.#rested(); };
    document.addEventListener("visibilitychange", seen);
    this.#ends = [
      eachPicture(element, (now) => this.#look(element, camera.size, landmarker, now), on.failed),
      () => document.removeEventListener("visibilitychange", seen), () => this.#stream?.close(), () => camera.stop(),
    ];
  }

  #rested() {
    this.#on.status("The webcam rested while this tab was in the background; it goes on.");
    const timer = setTimeout(() => this.#on.status(""), 4000);
    this.#ends.push(() => clearTimeout(timer));
  }

  get clip() {
    return this.#recording.clip;
  }

  stop() {
    this.#ends.splice(0).forEach((end) => end());
  }

  #look(element, size, landmarker, now) {
    const seen = landmarker.look(element, ...size, now);
    if (!seen) {
      this.#nobody += 1;
      if (this.#nobody === 30) this.#on.status("Nobody is seen: step back until the camera sees you from head to foot.");
      return;
    }
    if (this.#nobody >= 30) this.#on.status("");
    this.#nobody = 0;
    if (seen.refined) {
      this.#recording.add(now / 1000, seen, { refined: seen.refined, confidence: null });
      this.#on.frame(this.#recording.clip, performance.now() - now);
      return;
    }
    const stamp = Math.round(now * 1000);
    if (!this.#stream.send(seen.pose, seen.visibility, seen.imagePoints, stamp)) return;
    this.#sent.set(stamp, { seen, now });
  }

  #answered(answer) {
    const sent = this.#sent.get(answer.timestampUs);
    for (const stamp of this.#sent.keys()) if (stamp <= answer.timestampUs) this.#sent.delete(stamp);
    if (!sent) return;
    this.#recording.add(sent.now / 1000, sent.seen, answer);
    this.#on.frame(this.#recording.clip, performance.now() - sent.now);
  }
}
