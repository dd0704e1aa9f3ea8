// Figures of a motion: as `refiner video` prints them (refiner/cli/work.py).

import { BONES } from "./skeleton.js";

const length = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);

/** Mean over the bones of the standard deviation of their lengths by their mean; 0 for a body that keeps its bones.
 *  `poses`: a list of 17 x 3; gaps (null) are left out. */
export function boneVariation(poses) {
  const seen = poses.filter(Boolean);
  if (!seen.length) return NaN;
  let total = 0;
  for (const [a, b] of BONES) {
    const lengths = seen.map((pose) => length(pose[a], pose[b]));
    const mean = lengths.reduce((sum, value) => sum + value, 0) / lengths.length;
    const square = lengths.reduce((sum, value) => sum + (value - mean) ** 2, 0) / lengths.length;
    total += Math.sqrt(square) / Math.max(mean, 1e-9);
  }
  return total / BONES.length;
}

/** Mean acceleration of the joints about the hips, m/s². `seconds`: when each pose was. A gap makes no acceleration. */
export function jitter(poses, seconds) {
  let total = 0;
  let count = 0;
  for (let i = 1; i + 1 < poses.length; i += 1) {
    const [before, now, after] = [poses[i - 1], poses[i], poses[i + 1]];
    const [back, ahead] = [seconds[i] - seconds[i - 1], seconds[i + 1] - seconds[i]];
    if (!before || !now || !after || !(back > 0) || Math.abs(ahead - back) >= 0.5 * back) continue;
    for (let joint = 0; joint < now.length; joint += 1) {
      const parts = [0, 1, 2].map((axis) =>
        ((after[joint][axis] - now[joint][axis]) / ahead - (now[joint][axis] - before[joint][axis]) / back) / ((back + ahead) / 2));
      total += Math.hypot(...parts);
      count += 1;
    }
  }
  return count ? total / count : NaN;
}

/** Mean |Δz| in centimetres over joints and frames; NaN without a truth. */
export function depthError(poses, truth) {
  let total = 0;
  let count = 0;
  poses.forEach((pose, i) => {
    if (!pose || !truth?.[i]) return;
    pose.forEach((point, joint) => {
      total += Math.abs(point[2] - truth[i][joint][2]);
      count += 1;
    });
  });
  return count ? (total / count) * 100 : NaN;
}

/** Mean of numbers in nested lists; NaN of none. */
export function mean(rows) {
  const values = rows.filter(Boolean).flat(Infinity);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : NaN;
}
