// The skeletons in space, which one turns: three.js for the drawing, pointer and keys here.

import * as THREE from "../vendor/three/three.module.min.js";
import { confidenceColour } from "./geometry.js";
import { Problem } from "./problems.js";
import { DRAWN, JOINTS, neck } from "./skeleton.js";

const DISTANCE = [1.2, 8];
const STEP = Math.PI / 24; // of an arrow key
export const VIEWS = { front: [0, 0.08], side: [Math.PI / 2, 0.08], top: [0, Math.PI / 2 - 0.01] };

/** One person: joints and bones. Camera axes in (y down, z away), three's out (y up, z near). */
class Body {
  constructor(scene, { radius, thickness, opacity = 1 }) {
    const material = () => new THREE.MeshLambertMaterial({ transparent: opacity < 1, opacity });
    const ball = new THREE.SphereGeometry(radius, 16, 12);
    const rod = new THREE.CylinderGeometry(thickness, thickness, 1, 10);
    this.bone = material();
    this.joints = JOINTS.map((_, i) => new THREE.Mesh(i > 0 && i < 5 ? new THREE.SphereGeometry(radius * 0.6, 12, 8) : ball, material()));
    this.bones = [...DRAWN, null].map(() => new THREE.Mesh(rod, this.bone)); // the last is the neck
    this.group = new THREE.Group();
    this.group.add(...this.joints, ...this.bones);
    this.group.visible = false; // until there is a pose
    scene.add(this.group);
  }

  colour(bone, joints) {
    this.bone.color.set(bone);
    this.joints.forEach((joint, i) => joint.material.color.set(joints(i)));
  }

  pose(pose, chosen) {
    this.group.visible = Boolean(pose);
    if (!pose) return;
    const at = pose.map(([x, y, z]) => new THREE.Vector3(x, -y, -z));
    this.joints.forEach((joint, i) => { joint.position.copy(at[i]); joint.scale.setScalar(i === chosen ? 1.7 : 1); });
    const up = new THREE.Vector3(0, 1, 0);
    const [x, y, z] = neck(pose);
    const ends = [...DRAWN.map(([a, b]) => [at[a], at[b]]), [new THREE.Vector3(x, -y, -z), at[0]]];
    ends.forEach(([a, b], i) => {
      const along = b.clone().sub(a);
      const length = along.length();
      this.bones[i].position.copy(a).addScaledVector(along, 0.5);
      this.bones[i].scale.set(1, Math.max(length, 1e-6), 1);
      this.bones[i].quaternion.setFromUnitVectors(up, along.normalize());
    });
  }
}

/** The view on a canvas. Raises Problem where there is no WebGL. */
export class View3D {
  #renderer; #scene = new THREE.Scene(); #camera = new THREE.PerspectiveCamera(38, 1, 0.05, 50); #canvas; #wanted = 0; #colours;
  #turn = 0.65; #tilt = 0.18; #distance = 3.1; #floor;

  constructor(canvas, colours) {
    this.#canvas = canvas;
    try {
      this.#renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true });
    } catch {
      throw new Problem("This browser has no WebGL, so there is no view in space; everything else works.");
    }
    this.#scene.add(new THREE.HemisphereLight(0xffffff, 0x666677, 2.4));
    const sun = new THREE.DirectionalLight(0xffffff, 1.4);
    sun.position.set(1, 3, 2);
    this.#scene.add(sun);
    this.bodies = {
      truth: new Body(this.#scene, { radius: 0.016, thickness: 0.007, opacity: 0.75 }),
      mediapipe: new Body(this.#scene, { radius: 0.02, thickness: 0.01 }),
      refined: new Body(this.#scene, { radius: 0.032, thickness: 0.013 }),
    };
    this.recolour(colours);
    this.#listen();
    new ResizeObserver(() => this.#resize()).observe(canvas.parentElement);
    this.#resize();
  }

  /** `colours`: {mediapipe, refined, truth, grid} as CSS colours. */
  recolour(colours) {
    this.#colours = colours;
    const height = this.#floor?.position.y ?? -0.9;
    if (this.#floor) this.#scene.remove(this.#floor);
    this.#floor = new THREE.GridHelper(4, 16, colours.grid, colours.grid);
    this.#floor.position.y = height;
    this.#scene.add(this.#floor);
    for (const name of ["mediapipe", "truth"]) this.bodies[name].colour(colours[name], () => colours[name]);
    this.bodies.refined.colour(colours.refined, () => colours.refined);
    this.draw();
  }

  /** Where the floor is, metres below the hips. */
  floor(below) {
    this.#floor.position.y = -below;
  }

  /** Poses of 17 x 3 or null; `confidence` colours the refined joints; the chosen joint is larger. */
  show({ mediapipe, refined, truth, confidence }, chosen) {
    this.bodies.mediapipe.pose(mediapipe, chosen);
    this.bodies.refined.pose(refined, chosen);
    this.bodies.truth.pose(truth, chosen);
    this.bodies.refined.colour(this.#colours.refined, (i) => (confidence ? `rgb(${confidenceColour(confidence[i]).join()})` : this.#colours.refined));
    this.draw();
  }

  /** Turns to one of VIEWS. */
  look(name) {
    [this.#turn, this.#tilt] = VIEWS[name];
    this.draw();
  }

  /** The angles, for whoever wants to know whether it turned. */
  get angles() {
    return [this.#turn, this.#tilt];
  }

  draw() {
    cancelAnimationFrame(this.#wanted);
    this.#wanted = requestAnimationFrame(() => {
      const [flat, up] = [Math.cos(this.#tilt), Math.sin(this.#tilt)];
      this.#camera.position.set(Math.sin(this.#turn) * flat, up, Math.cos(this.#turn) * flat).multiplyScalar(this.#distance);
      this.#camera.lookAt(0, 0, 0);
      this.#canvas.dataset.turn = this.#turn.toFixed(3);
      this.#renderer.render(this.#scene, this.#camera);
    });
  }

  #move(turn, tilt, zoom = 1) {
    this.#turn += turn;
    this.#tilt = Math.min(Math.max(this.#tilt + tilt, -0.4), Math.PI / 2 - 0.01);
    this.#distance = Math.min(Math.max(this.#distance * zoom, DISTANCE[0]), DISTANCE[1]);
    this.draw();
  }

  #listen() {
    const pointers = new Map();
    const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
    this.#canvas.addEventListener("pointerdown", (event) => {
      this.#canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    this.#canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const apart = pointers.size === 2 ? spread() : 0;
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (apart) this.#move(0, 0, apart / Math.max(spread(), 1));
      else this.#move(-(event.clientX - before.x) / 120, (event.clientY - before.y) / 160);
    });
    for (const end of ["pointerup", "pointercancel"]) this.#canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    this.#canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== this.#canvas) return; // the page scrolls
      event.preventDefault();
      this.#move(0, 0, Math.exp(event.deltaY / 600));
    }, { passive: false });
    const keys = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP], "+": [0, 0, 0.9], "-": [0, 0, 1.1] };
    this.#canvas.addEventListener("keydown", (event) => {
      if (!keys[event.key]) return;
      event.preventDefault();
      this.#move(...keys[event.key]);
    });
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.#canvas.parentElement;
    if (!width || !height) return;
    this.#renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.#renderer.setSize(width, height, false);
    this.#camera.aspect = width / height;
    this.#camera.updateProjectionMatrix();
    this.draw();
  }
}
