// The clock of a clip: plays, pauses, jumps. A video, where there is one, is the clock; else the time is counted here.

export class Player {
  #seconds = []; #video = null; #playing = false; #time = 0; #last = 0; #on; #wanted = 0;

  /** `on(frame, time, playing)` is told whenever one of these changes. */
  constructor(on) {
    this.#on = on;
  }

  /** Takes another clip; `video` is an element that shows it, or null. */
  load(seconds, video) {
    this.#video?.pause();
    [this.#seconds, this.#video, this.#time, this.#playing] = [seconds, video, seconds[0] ?? 0, false];
    this.#tell();
  }

  get frame() {
    return nearest(this.#seconds, this.#time);
  }

  get time() {
    return this.#time;
  }

  get playing() {
    return this.#playing;
  }

  play() {
    if (!this.#seconds.length || this.#playing) return;
    this.#playing = true;
    this.#last = performance.now();
    this.#video?.play().catch(() => {}); // a video that may not play: the count below goes on
    this.#wanted = requestAnimationFrame((now) => this.#tick(now));
    this.#tell();
  }

  pause() {
    if (!this.#playing) return;
    this.#playing = false;
    this.#video?.pause();
    cancelAnimationFrame(this.#wanted);
    this.#tell();
  }

  seek(time) {
    const [first, last] = [this.#seconds[0] ?? 0, this.#seconds.at(-1) ?? 0];
    this.#time = Math.min(Math.max(time, first), last);
    if (this.#video) this.#video.currentTime = this.#time + 1e-3;
    this.#tell();
  }

  step(frames) {
    this.pause();
    const frame = Math.min(Math.max(this.frame + frames, 0), this.#seconds.length - 1);
    this.seek(this.#seconds[frame] ?? 0);
  }

  #tick(now) {
    const end = this.#seconds.at(-1);
    if (this.#video && !this.#video.paused && this.#video.readyState > 1) this.#time = this.#video.currentTime;
    else this.#time += (now - this.#last) / 1000;
    this.#last = now;
    if (this.#time >= end || this.#video?.ended) {
      this.seek(this.#seconds[0]);
      this.#video?.play().catch(() => {});
    } else this.#tell();
    if (this.#playing) this.#wanted = requestAnimationFrame((next) => this.#tick(next));
  }

  #tell() {
    this.#on(this.frame, this.#time, this.#playing);
  }
}

/** The index of the last of rising moments that is not after a time; 0 before the first. */
export function nearest(seconds, time) {
  let [low, high] = [0, seconds.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (seconds[middle] <= time + 1e-6) low = middle;
    else high = middle - 1;
  }
  return Math.max(low, 0);
}
