// The webcam: pictures into landmarks here, landmarks into refined poses on the server, newest first.

import { token } from "./endpoint.js";
import { Stream } from "./stream.js";
import { eachPicture, Recording } from "./watch.js";

/** Runs until `stop`. `on`: {frame(clip, latencyMs), status(sentence), model(model)}. */
export class Live {
  #ends = []; #sent = new Map(); #stream; #recording; #nobody = 0; #on;

  constructor(element, camera, landmarker, on) {
    this.#on = on;
    this.#recording = new Recording(camera.size);
    this.#stream = new Stream({
      answer: (answer) => this.#answered(answer),
      model: on.model,
      problem: (sentence) => on.status(sentence),
      state: (state, reason) => on.status(state === "open" ? "" : `The connection is lost${reason ? ` (${reason})` : ""}: it is tried again.`),
    }, token.get());
    this.#ends = [
      eachPicture(element, (now) => this.#look(element, camera.size, landmarker, now)),
      () => this.#stream.close(), () => camera.stop(),
    ];
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
