// The page's logic, without a browser: node --test tests/serve/page/

import assert from "node:assert/strict";
import { test } from "node:test";

import { depths, described, ticks } from "../../../serve/page/js/chart.js";
import { frameRate, parseClip } from "../../../serve/page/js/clip.js";
import { fileName, motion } from "../../../serve/page/js/downloads.js";
import { boneVariation, depthError, jitter, mean } from "../../../serve/page/js/figures.js";
import { confidenceColour, placed } from "../../../serve/page/js/geometry.js";
import { nearest } from "../../../serve/page/js/player.js";
import { cameraProblem, Problem, problemOf, sentence } from "../../../serve/page/js/problems.js";
import { FROM_MEDIAPIPE, JOINTS, rooted } from "../../../serve/page/js/skeleton.js";
import { decode, encode, protocols, Stream } from "../../../serve/page/js/stream.js";

const pose = (shift = 0) => JOINTS.map((_, i) => [i * 0.1 + shift, Math.sin(i) * 0.5, Math.cos(3 * i) * 0.2]);

test("a pose of 33 becomes the 17 of COCO about the hips", () => {
  const landmarks = Array.from({ length: 33 }, (_, i) => [i, 2 * i, -i]);
  const joints = rooted(landmarks);
  const root = (FROM_MEDIAPIPE[11] + FROM_MEDIAPIPE[12]) / 2;
  assert.deepEqual(joints[9], [15 - root, 2 * (15 - root), -(15 - root)]);
  assert.equal(joints.length, 17);
});

test("a body that only moves keeps its bones, one that grows does not", () => {
  const still = [0, 1, 2].map(pose);
  assert.ok(boneVariation(still) < 1e-12);
  const growing = [0.9, 1, 1.1].map((size) => pose().map((point) => point.map((value) => value * size)));
  assert.ok(Math.abs(boneVariation(growing) - Math.sqrt(0.02 / 3)) < 1e-9);
  assert.ok(Number.isNaN(boneVariation([null])));
});

test("jitter is the acceleration, whatever the frame rate, and a gap makes none", () => {
  const seconds = [0, 0.1, 0.2, 0.3, 1.3, 1.4];
  const falling = seconds.map((time) => pose(4.905 * time * time));
  assert.ok(Math.abs(jitter(falling.slice(0, 4), seconds.slice(0, 4)) - 9.81) < 1e-6);
  assert.ok(Math.abs(jitter(falling, seconds) - 9.81) < 1e-6);
  assert.ok(jitter(seconds.map((time) => pose(3 * time)), seconds) < 1e-9);
  assert.ok(Number.isNaN(jitter([pose(), null, pose()], [0, 1, 2])));
});

test("the error in depth is a mean over joints and frames, in centimetres", () => {
  const deeper = pose().map(([x, y, z]) => [x + 5, y, z + 0.03]);
  assert.ok(Math.abs(depthError([deeper, null], [pose(), pose()]) - 3) < 1e-9);
  assert.equal(mean([[1, 2], null, [3]]), 2);
});

test("a pose lies where its points are", () => {
  const points = pose().map(([x, y]) => [200 * x + 30, 200 * y + 40]);
  placed(pose(), points, null).forEach((point, i) => point.forEach((value, axis) => assert.ok(Math.abs(value - points[i][axis]) < 1e-6)));
});

test("confidence goes from one colour to the other", () => {
  assert.notDeepEqual(confidenceColour(0), confidenceColour(1));
  assert.deepEqual(confidenceColour(-1), confidenceColour(0));
});

test("ticks are round and cover the range", () => {
  assert.deepEqual(ticks(-23, 31, 5), [-20, 0, 20]);
  assert.deepEqual(ticks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
});

test("the chart says in words what it shows", () => {
  const lines = depths({ truth: null, mediapipe: [pose(), null], refined: [pose(), pose()] }, 0);
  assert.deepEqual(Object.keys(lines), ["mediapipe", "refined"]);
  assert.match(described(lines, "nose"), /nose .*MediaPipe from 20 to 20 cm, refined/);
});

test("the time line finds its frame", () => {
  assert.deepEqual([-1, 0, 0.05, 0.1, 9].map((time) => nearest([0, 0.1, 0.2], time)), [0, 0, 0, 1, 2]);
  assert.ok(Math.abs(frameRate([0, 0.04, 0.08, 0.5]) - 25) < 1e-9);
});

test("files of every known kind become clips", () => {
  const request = parseClip(JSON.stringify({ poses: [pose(), pose(1)], visibility: [Array(17).fill(1), Array(17).fill(1)], fps: 50 }), "a.json");
  assert.deepEqual(request.seconds, [0, 0.02]);
  const answer = parseClip(JSON.stringify({ refined: [pose()], confidence: [Array(17).fill(0.5)], timestamp_us: [40000], model: { name: "m", version: "1" } }), "b.json");
  assert.equal(answer.seconds[0], 0.04);
  const exported = parseClip(JSON.stringify({ fps: 30, frames: [{ time_s: 1, pose: pose(), confidence: Array(17).fill(1) }] }), "c.json");
  assert.ok(Math.abs(exported.refined[0][0][1] - -(pose()[0][1] - (pose()[11][1] + pose()[12][1]) / 2)) < 1e-9); // y down again
  const heads = ["frame", "time_s", ...JOINTS.flatMap((joint) => ["x_m", "y_m", "z_m", "confidence"].map((part) => `${joint}_${part}`))];
  const csv = parseClip([heads.join(), [0, 0.5, ...JOINTS.flatMap(() => [1, 2, 3, 0.5])].join()].join("\n"), "d.csv");
  assert.deepEqual([csv.seconds[0], csv.confidence[0][3]], [0.5, 0.5]);
  const world = Array.from({ length: 33 }, (_, i) => ({ x: i, y: 0, z: 0, visibility: 0.5 }));
  const results = parseClip(JSON.stringify([{ timestamp: 100, worldLandmarks: [world] }, { timestamp: 133, worldLandmarks: [] }]), "e.json");
  assert.deepEqual([results.poses[1], results.seconds[1], results.visibility[0][4]], [null, 0.133, 0.5]);
});

test("what is no clip gets one sentence that names the file", () => {
  const bad = [
    "", "{", "7", "{}", "[]", '{"poses": []}', '{"poses": [[[1, 2]]]}', '{"poses": "x"}', '{"frames": []}', '{"frames": [{}]}',
    JSON.stringify({ poses: [pose(), pose().slice(1)] }), JSON.stringify({ poses: [pose()], visibility: [[1]] }),
    JSON.stringify({ poses: [pose()], visibility: [] }), JSON.stringify([{ landmarks: [[]] }]), "frame,time_s,foo\n1,2,3",
    JSON.stringify({ poses: [pose().map((point) => point.map(() => null))] }), JSON.stringify({ refined: [[]] }),
  ];
  for (const text of bad) {
    assert.throws(() => parseClip(text, "my.json"), (error) => error instanceof Problem && error.message.includes("my.json") && /[.!]$/.test(error.message), text);
  }
});

test("a frame has the bytes that the server reads, an answer those that it writes", () => {
  const buffer = encode(pose(), Array(17).fill(2), pose().map(([x, y]) => [x, y]), 2 ** 40 + 7);
  const view = new DataView(buffer);
  assert.equal(buffer.byteLength, 16 + 4 * 17 * 6);
  assert.equal(String.fromCharCode(...new Uint8Array(buffer, 0, 4)), "POSE");
  assert.deepEqual([view.getUint16(4, true), view.getUint16(6, true), view.getBigUint64(8, true)], [17, 3, 2n ** 40n + 7n]);
  assert.equal(view.getFloat32(16 + 4 * 51, true), 1); // visibility within 0 and 1
  const answer = new DataView(new ArrayBuffer(24 + 4 * 68));
  answer.setUint32(4, 9, true);
  answer.setBigUint64(8, 123n, true);
  answer.setUint32(16, 3, true);
  answer.setFloat32(20, 45, true);
  answer.setFloat32(24 + 4 * 4, 0.25, true);
  answer.setFloat32(24 + 4 * 51, 0.5, true);
  const found = decode(answer.buffer);
  assert.deepEqual([found.frame, found.timestampUs, found.dropped, found.viewAngle, found.refined[1][1], found.confidence[0]], [9, 123, 3, 45, 0.25, 0.5]);
});

test("a token travels as a subprotocol", () => {
  assert.deepEqual(protocols(""), ["pose-stream.v1"]);
  assert.deepEqual(protocols("secret-/+~"), ["pose-stream.v1", "bearer.c2VjcmV0LS8rfg"]);
});

test("a stream that breaks is opened again, and one that is closed is not", async () => {
  globalThis.document = { baseURI: "https://x.example/" };
  const made = [];
  const make = (url) => {
    made.push({ url, readyState: 1, bufferedAmount: 0, sent: [], send(bytes) { this.sent.push(bytes); }, close() {} });
    return made.at(-1);
  };
  const heard = [];
  const stream = new Stream({ answer: () => heard.push("answer"), model: (model) => heard.push(model.version), problem: (text) => heard.push(text), state: (name) => heard.push(name) }, "", make);
  assert.equal(made[0].url, "wss://x.example/v1/stream");
  made[0].onopen();
  made[0].onmessage({ data: '{"model": {"name": "m", "version": "3"}}' });
  made[0].onmessage({ data: '{"frame": 0, "error": "no"}' });
  assert.ok(stream.send(pose(), null, null, 1));
  made[0].bufferedAmount = 1e6;
  assert.ok(!stream.send(pose(), null, null, 2)); // what waits to leave is enough
  made[0].onclose({ reason: "" });
  await new Promise((resolve) => { setTimeout(resolve, 600); });
  assert.equal(made.length, 2);
  stream.close();
  made[1].onclose({ reason: "" });
  await new Promise((resolve) => { setTimeout(resolve, 600); });
  assert.equal(made.length, 2);
  assert.deepEqual(heard, ["open", "3", "no", "lost"]);
});

test("problems are sentences", async () => {
  assert.equal((await problemOf(new Response('{"detail": "too large"}', { status: 413 }))).message, "too large");
  assert.match((await problemOf(new Response("<html>", { status: 502 }))).message, /502/);
  for (const name of ["NotAllowedError", "NotFoundError", "NotReadableError", "OverconstrainedError", "SecurityError", "Other"]) {
    assert.match(cameraProblem({ name, message: "x" }).message, /\.$/);
  }
  assert.match(sentence(new TypeError("Failed to fetch")), /cannot be reached/);
});

test("a motion is the frames with a person", () => {
  const clip = { name: "My clip (1).mp4", seconds: [1, 1.5, 2], refined: [pose(), null, pose()], confidence: [Array(17).fill(1), null, Array(17).fill(1)], imagePoints: null, visibility: null, size: null };
  const made = motion(clip);
  assert.deepEqual([made.refined.length, made.timestamp_us, made.name], [2, [0, 1000000], "My-clip-1"]);
  assert.equal(fileName("?.mp4"), "pose");
});
