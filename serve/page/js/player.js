// The clock of a clip: plays, pauses, jumps. A video, where there is one, is the clock; else the time is counted here.

const FRESH_MS = 500; // so long the picture that a video told last is taken for the one that is seen
const SAME_S = 1e-3; // containers round their stamps to milliseconds

export class Player {
  #seconds = []; #video = null; #playing = false; #time = 0; #last = 0; #on; #wanted = 0; #shown = null; #told = 0;

  /** `on(frame, time, playing)` is told whenever one of these changes. */
  constructor(on) {
    this.#on = on;
  }

  /** Takes another clip; `video` is an element that shows it, or null. */
  load(seconds, video) {
    this.#video?.pause();
    this.#video?.cancelVideoFrameCallback?.(this.#told);
    [this.#seconds, this.#video, this.#time, this.#playing, this.#shown] = [seconds, video, seconds[0] ?? 0, false, null];
    this.#follow();
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
    this.#shown = null;
    if (this.#video) this.#video.currentTime = this.#time + 1e-3;
    this.#tell();
  }

  step(frames) {
    this.pause();
    const frame = Math.min(Math.max(this.frame + frames, 0), this.#seconds.length - 1);
    this.seek(this.#seconds[frame] ?? 0);
  }

  /** Which of its pictures a video shows: its own clock is up to a picture ahead, or behind. */
  #follow() {
    this.#told = this.#video?.requestVideoFrameCallback?.((now, { mediaTime }) => {
      this.#shown = { mediaTime, now };
      this.#follow();
    });
  }

  #tick(now) {
    const end = this.#seconds.at(-1);
    const running = this.#video && !this.#video.paused && this.#video.readyState > 1;
    if (running) this.#time = this.#shown && now - this.#shown.now < FRESH_MS ? this.#shown.mediaTime : this.#video.currentTime;
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
    if (seconds[middle] <= time + SAME_S) low = middle;
    else high = middle - 1;
  }
  return Math.max(low, 0);
}
