// Both skeletons on the picture.

import { confidenceColour, placed } from "./geometry.js";
import { DRAWN, neck, toCoco } from "./skeleton.js";

/** Draws one frame. `canvas` lies over a picture of `size` pixels, which fills it. */
export function drawOverlay(canvas, { imagePoints, visibility, refined, confidence, size }, show, colours, chosen) {
  const ratio = Math.min(devicePixelRatio || 1, 2);
  const { clientWidth, clientHeight } = canvas;
  canvas.width = Math.round(clientWidth * ratio);
  canvas.height = Math.round(clientHeight * ratio);
  if (!imagePoints || !size) return;
  const context = canvas.getContext("2d");
  const scale = Math.min(canvas.width / size[0], canvas.height / size[1]);
  context.translate((canvas.width - size[0] * scale) / 2, (canvas.height - size[1] * scale) / 2);
  const points = toCoco(imagePoints).map(([x, y]) => [x * scale, y * scale]);
  const width = Math.max(2, canvas.height / 220);
  if (show.mediapipe) draw(context, points, colours.mediapipe, () => colours.mediapipe, width, chosen);
  if (show.refined && refined) {
    const there = placed(refined, points, visibility);
    draw(context, there, colours.refined, (i) => (confidence ? `rgb(${confidenceColour(confidence[i]).join()})` : colours.refined), width, chosen);
  }
}

function draw(context, points, bone, joint, width, chosen) {
  context.lineWidth = width;
  context.lineCap = "round";
  context.strokeStyle = bone;
  context.beginPath();
  for (const [a, b] of DRAWN) {
    context.moveTo(...points[a]);
    context.lineTo(...points[b]);
  }
  context.moveTo(...neck(points));
  context.lineTo(...points[0]);
  context.stroke();
  points.forEach(([x, y], i) => {
    context.fillStyle = joint(i);
    context.beginPath();
    context.arc(x, y, width * (i === chosen ? 2.4 : i > 0 && i < 5 ? 1 : 1.6), 0, 2 * Math.PI);
    context.fill();
  });
}
