// The depth of one joint over time, as an SVG: a line for each source, and where the time line stands.

const SPACE = { left: 46, right: 10, top: 10, bottom: 24 };
const NAMES = { truth: "truth", mediapipe: "MediaPipe", refined: "refined" };
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

/** Round numbers that cover a range: at most `most` of them. */
export function ticks(low, high, most) {
  const raw = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= raw * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const all = [];
  for (let i = first; i * step <= high + step * 1e-9; i += 1) all.push(Number((i * step).toPrecision(6)));
  return all;
}

/** Depths in centimetres of a joint: {truth, mediapipe, refined} -> lists with null in gaps. */
export function depths(sources, joint) {
  const of = (poses) => poses?.map((pose) => (pose ? pose[joint][2] * 100 : null)) ?? null;
  return Object.fromEntries(Object.entries(sources).map(([name, poses]) => [name, of(poses)]).filter(([, list]) => list));
}

/** What the chart says, for those who do not see it. */
export function described(lines, joint) {
  const parts = Object.entries(lines).map(([name, list]) => {
    const there = list.filter((value) => value !== null);
    return there.length ? `${NAMES[name]} from ${Math.min(...there).toFixed(0)} to ${Math.max(...there).toFixed(0)} cm` : `${NAMES[name]} nowhere`;
  });
  return `Depth of the ${joint} behind the hips over time: ${parts.join(", ")}.`;
}

export class Chart {
  #svg; #cursor = null; #x = () => 0;

  constructor(svg) {
    this.#svg = svg;
  }

  /** Draws anew. `lines` as `depths` gives them, `seconds` for each entry. */
  draw(lines, seconds, joint) {
    const { width, height } = this.#svg.getBoundingClientRect();
    if (!width) return;
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#svg.setAttribute("aria-label", described(lines, joint));
    const values = Object.values(lines).flat().filter((value) => value !== null);
    const [low, high] = values.length ? [Math.min(...values, -5) - 2, Math.max(...values, 5) + 2] : [-20, 20];
    const [start, end] = [seconds[0] ?? 0, Math.max(seconds.at(-1) ?? 1, (seconds[0] ?? 0) + 0.1)];
    const x = (time) => SPACE.left + ((time - start) / (end - start)) * (width - SPACE.left - SPACE.right);
    const y = (value) => SPACE.top + ((value - low) / (high - low)) * (height - SPACE.top - SPACE.bottom);
    this.#x = x;
    const grid = ticks(low, high, 5).flatMap((value) => [
      element("line", { class: value === 0 ? "grid zero" : "grid", x1: SPACE.left, x2: width - SPACE.right, y1: y(value), y2: y(value) }),
      element("text", { class: "tick", x: SPACE.left - 6, y: y(value) + 4, "text-anchor": "end" }, `${value}`),
    ]);
    const times = ticks(start, end, Math.max(2, Math.floor(width / 90))).map((time) =>
      element("text", { class: "tick", x: x(time), y: height - 6, "text-anchor": "middle" }, `${time} s`));
    const drawn = Object.entries(lines).map(([name, list]) => element("path", { class: `line ${name}`, d: path(list, seconds, x, y) }));
    this.#cursor = element("line", { class: "cursor", y1: SPACE.top, y2: height - SPACE.bottom });
    this.#svg.replaceChildren(...grid, ...times, ...drawn, this.#cursor);
  }

  /** Moves the line that says where the time is. */
  at(time) {
    this.#cursor?.setAttribute("x1", this.#x(time));
    this.#cursor?.setAttribute("x2", this.#x(time));
  }
}

function path(list, seconds, x, y) {
  let pen = "M";
  return list.map((value, i) => {
    if (value === null) {
      pen = "M";
      return "";
    }
    const piece = `${pen}${x(seconds[i]).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
    return piece;
  }).join("");
}
