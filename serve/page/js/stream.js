// Live poses over the WebSocket /v1/stream: landmarks out, refined poses in. serve/stream/messages.py has the layout.

import { JOINTS } from "./skeleton.js";

const PROTOCOL = "pose-stream.v1";
const HEAD = 16;
const VISIBILITY = 1;
const IMAGE_POINTS = 2;
// Pauses before it is tried again, milliseconds: a replica that died is replaced within seconds.
const PAUSES = [200, 500, 1000, 2000, 5000];

/** A frame as bytes. `timestampUs` rises from frame to frame. */
export function encode(pose, visibility, imagePoints, timestampUs) {
  const joints = pose.length;
  const floats = joints * (3 + (visibility ? 1 : 0) + (imagePoints ? 2 : 0));
  const view = new DataView(new ArrayBuffer(HEAD + 4 * floats));
  [..."POSE"].forEach((letter, i) => view.setUint8(i, letter.charCodeAt(0)));
  view.setUint16(4, joints, true);
  view.setUint16(6, (visibility ? VISIBILITY : 0) | (imagePoints ? IMAGE_POINTS : 0), true);
  view.setBigUint64(8, BigInt(Math.round(timestampUs)), true);
  let at = HEAD;
  const put = (value) => { view.setFloat32(at, value, true); at += 4; };
  pose.forEach((point) => point.forEach(put));
  visibility?.forEach((value) => put(Math.min(Math.max(value, 0), 1)));
  imagePoints?.forEach((point) => point.forEach(put));
  return view.buffer;
}

/** The bytes of an answer -> {frame, timestampUs, dropped, viewAngle, refined, confidence}. */
export function decode(buffer) {
  const view = new DataView(buffer);
  const float = (i) => view.getFloat32(24 + 4 * i, true);
  return {
    frame: view.getUint32(4, true), timestampUs: Number(view.getBigUint64(8, true)), dropped: view.getUint32(16, true),
    viewAngle: view.getFloat32(20, true),
    refined: JOINTS.map((_, joint) => [0, 1, 2].map((axis) => float(3 * joint + axis))),
    confidence: JOINTS.map((_, joint) => float(3 * JOINTS.length + joint)),
  };
}

/** What a browser says in place of the Authorization header, which a WebSocket has none of. */
export function protocols(token) {
  if (!token) return [PROTOCOL];
  const bytes = String.fromCharCode(...new TextEncoder().encode(token));
  return [PROTOCOL, `bearer.${btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`];
}

/** A stream that connects again by itself. `on`: {answer(answer), model(model), problem(sentence), state("open" | "lost")}. */
export class Stream {
  #on; #token; #socket = null; #attempt = 0; #timer = 0; #ended = false; #make;

  constructor(on, token, make = (url, names) => new WebSocket(url, names)) {
    [this.#on, this.#token, this.#make] = [on, token, make];
    this.#connect();
  }

  /** Sends a frame, unless the last ones still wait to leave: the newest is sent when they have. Returns whether it was. */
  send(pose, visibility, imagePoints, timestampUs) {
    if (this.#socket?.readyState !== 1 || this.#socket.bufferedAmount > 16384) return false;
    this.#socket.send(encode(pose, visibility, imagePoints, timestampUs));
    return true;
  }

  close() {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#socket?.close();
  }

  #connect() {
    const url = new URL("v1/stream", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = this.#make(url.href, protocols(this.#token));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => { this.#on.state("open"); };
    socket.onmessage = ({ data }) => this.#message(data);
    socket.onclose = ({ reason }) => this.#lost(reason);
    this.#socket = socket;
  }

  #message(data) {
    this.#attempt = 0;
    if (typeof data !== "string") return this.#on.answer(decode(data));
    const { error, model } = JSON.parse(data);
    if (error) return this.#on.problem(error);
    return model && this.#on.model(model);
  }

  #lost(reason) {
    if (this.#ended) return;
    this.#on.state("lost", reason);
    this.#timer = setTimeout(() => this.#connect(), PAUSES[Math.min(this.#attempt, PAUSES.length - 1)]);
    this.#attempt += 1;
  }
}
