// Which of MediaPipe's models look at the pictures. Each is loaded once, when it is wanted.

export class Eyes {
  #loaded = {}; #progress;

  /** `progress(share, what)` is told how far the loading is. */
  constructor(progress) {
    this.#progress = progress;
  }

  /** What looks at another source: MediaPipe's own model, or where the browser `refines` the one with the refiner inside, which
   *  MediaPipe's own may stand `beside`. */
  async open({ refines, beside }) {
    if (!refines) return this.#one("stock");
    const [refined, stock] = [await this.#one("refined"), beside ? await this.#one("stock") : null];
    const { refining } = await import("./mediapipe.js");
    return refining(refined, stock);
  }

  async #one(name) {
    if (!this.#loaded[name]) {
      const { MODELS, openLandmarker } = await import("./mediapipe.js");
      this.#loaded[name] ??= openLandmarker(this.#progress, MODELS[name]);
      this.#loaded[name].catch(() => { this.#loaded[name] = null; }); // a second try may have the network back
    }
    const landmarker = await this.#loaded[name];
    await landmarker.forget();
    return landmarker;
  }
}
