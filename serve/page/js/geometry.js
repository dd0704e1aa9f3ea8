// Where a 3D pose lies in the picture, and colours of confidence.

import { toCoco } from "./skeleton.js";

/** Places a pose on the picture: the scale and the shift of x and y that bring it closest to the image points (weak
 *  perspective, weighted least squares). Returns 17 x 2 pixels. */
export function placed(pose, imagePoints, weights) {
  const points = toCoco(imagePoints);
  const trust = (weights ? toCoco(weights) : points.map(() => 1)).map((weight) => Math.max(weight, 1e-3));
  const total = trust.reduce((sum, weight) => sum + weight, 0);
  const centre = (rows, axis) => rows.reduce((sum, row, i) => sum + trust[i] * row[axis], 0) / total;
  const [poseX, poseY, pointX, pointY] = [centre(pose, 0), centre(pose, 1), centre(points, 0), centre(points, 1)];
  let top = 0;
  let bottom = 1e-9;
  pose.forEach((row, i) => {
    top += trust[i] * ((row[0] - poseX) * (points[i][0] - pointX) + (row[1] - poseY) * (points[i][1] - pointY));
    bottom += trust[i] * ((row[0] - poseX) ** 2 + (row[1] - poseY) ** 2);
  });
  const scale = top / bottom;
  return pose.map((row) => [(row[0] - poseX) * scale + pointX, (row[1] - poseY) * scale + pointY]);
}

// From unsure to sure; told apart with any kind of colour vision, and on light and dark grounds.
const SCALE = [[214, 39, 72], [240, 150, 90], [120, 190, 225], [30, 120, 210]];

/** Confidence 0 … 1 -> [red, green, blue] 0 … 255. */
export function confidenceColour(confidence) {
  const place = Math.min(Math.max(confidence, 0), 1) * (SCALE.length - 1);
  const low = Math.min(Math.floor(place), SCALE.length - 2);
  return SCALE[low].map((value, i) => Math.round(value + (SCALE[low + 1][i] - value) * (place - low)));
}
