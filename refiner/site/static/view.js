// Drawing: skeletons on the picture and in space. Nothing here knows MediaPipe's runtime; numbers in, lines out.

/** Turns points about the vertical axis and looks at them from the front, without perspective.
 * @param {{x: number, y: number, z: number}[]} world metres, x right, y down, z away from the camera
 * @param {number} yaw radians; a quarter turn shows the side
 * @param {number} size of the picture in pixels; 2.2 metres fit into it
 * @returns {{x: number, y: number}[]} pixels */
export function seenFrom(world, yaw, size) {
  const cosine = Math.cos(yaw), sine = Math.sin(yaw), scale = size / 2.2;
  return world.map(({ x, y, z }) => ({ x: size / 2 + (cosine * x + sine * z) * scale, y: size / 2 + y * scale }));
}

/** Draws the bones between points that are in pixels. */
export function drawBones(context, points, connections, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineCap = "round";
  context.beginPath();
  for (const { start, end } of connections) {
    context.moveTo(points[start].x, points[start].y);
    context.lineTo(points[end].x, points[end].y);
  }
  context.stroke();
}

/** Fits a canvas's pixels to the place that it has on the screen. */
export function fit(canvas) {
  const width = Math.round(canvas.clientWidth * devicePixelRatio), height = Math.round(canvas.clientHeight * devicePixelRatio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return context;
}
