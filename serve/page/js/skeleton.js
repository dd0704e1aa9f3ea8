// COCO-17 and how MediaPipe's 33 landmarks map onto it: refiner/skeleton.py for the browser. tests/serve/test_page.py compares them.

export const JOINTS = [
  "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
  "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
];
// MediaPipe's landmark of each joint.
export const FROM_MEDIAPIPE = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28];
// Bones whose length a body keeps.
export const BONES = [[5, 7], [6, 8], [7, 9], [8, 10], [11, 13], [12, 14], [13, 15], [14, 16], [5, 11], [6, 12], [5, 6], [11, 12]];
// What is drawn: the bones and the lines of the face.
export const DRAWN = [...BONES, [0, 1], [0, 2], [1, 3], [2, 4]];
export const LANDMARKS = 33;

/** The middle of the shoulders, from which a line to the nose makes a neck; of rows of numbers. */
export function neck(joints) {
  return joints[5].map((value, axis) => (value + joints[6][axis]) / 2);
}

/** A pose of 17 or 33 points as 17, its hips' midpoint at the origin. */
export function rooted(pose) {
  const joints = toCoco(pose);
  const root = [0, 1, 2].map((axis) => (joints[11][axis] + joints[12][axis]) / 2);
  return joints.map((point) => point.map((value, axis) => value - root[axis]));
}

/** 17 or 33 rows of anything -> 17 rows. */
export function toCoco(rows) {
  return rows.length === LANDMARKS ? FROM_MEDIAPIPE.map((landmark) => rows[landmark]) : rows;
}

/** "left_wrist" -> "left wrist". */
export function spoken(joint) {
  return joint.replace("_", " ");
}
