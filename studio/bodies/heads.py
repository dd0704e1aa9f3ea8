"""The head of a MakeHuman figure: where its eyes and ears are, and the colours of its face."""

from dataclasses import dataclass, replace

import numpy as np

from studio.bodies.layers import Layer, group_layer, mesh_group
from studio.bodies.looks import SKIN, Look
from studio.bodies.makehuman import assets
from studio.curves import smoothstep


@dataclass(frozen=True)
class Head:
    """Where things are on a head in the bind pose."""

    eyes: np.ndarray  # (2, 3) the eyeballs' centres, left first
    canals: np.ndarray  # (2, 3) the ears' canals
    scale: float  # relative to the average adult's

    def tinted(self, layer: Layer, look: Look, man: float, age: float, rng: np.random.Generator) -> Layer:
        """Skin with lips, brows, beard and what else is not of one colour."""
        tints = np.zeros((len(layer.vertices), 4))
        used, finer, _ = mesh_group("body", 0)
        masks = {name: np.asarray(finer @ mask[used]) for name, mask in assets().masks.items()}
        skin, lips, brows, hair = look.colours[0], look.colours[8], look.colours[10], look.colours[7]

        def paint(colour: np.ndarray, amount: np.ndarray) -> None:
            amount = np.clip(amount, 0, 1)[:, None]
            total = amount + tints[:, 3:] * (1 - amount)
            mixed = (colour * amount + tints[:, :3] * tints[:, 3:] * (1 - amount)) / np.maximum(total, 1e-6)
            tints[:] = np.hstack([mixed, total])

        p = (layer.vertices - self.eyes.mean(0)) / self.scale  # metres on an average head, from between the eyes
        across, up, ahead = np.abs(p[:, 0]), p[:, 1], p[:, 2]
        face = smoothstep(-0.02, 0.0, ahead) * (np.linalg.norm(p, axis=1) < 0.2)
        side = (self.eyes[0] - self.eyes.mean(0))[0] / self.scale
        cheeks = np.exp(-((across - 0.042) ** 2 + (up + 0.038) ** 2) / 0.0006) + 0.7 * np.exp(
            -(across**2 + (up + 0.038) ** 2) / 0.0003
        )
        paint(skin * (1.0, 0.72, 0.70), 0.55 * cheeks * face)
        paint(skin * 0.60, 0.5 * masks["eyelids"])
        paint(lips * 0.08, masks["inside-mouth"])
        sockets = np.exp(-((across - side) ** 2 / 0.0004 + (up + 0.004) ** 2 / 0.0002))
        paint(skin * (0.66, 0.58, 0.56), (0.35 + 0.2 * age) * sockets * face)
        paint(lips * (1.0 - 0.25 * man), (0.55 + 0.35 * (1 - man)) * masks["lips"])
        paint(skin * (1.0, 0.9, 0.88) * 1.08, 0.6 * masks["fingernails"])
        if look.beard:
            jaw = smoothstep(-0.047, -0.062, up + 0.3 * np.maximum(0.04 - across, 0)) * smoothstep(
                -0.055, -0.025, ahead
            )
            jaw *= smoothstep(-0.135, -0.118, up) * (1 - masks["lips"]) * (np.linalg.norm(p, axis=1) < 0.2)
            moustache = np.exp(-((up + 0.048) ** 2) / 0.00004) * smoothstep(0.030, 0.018, across) * face
            paint(hair, rng.uniform(0.45, 0.9) * np.maximum(jaw, moustache))
        height = 0.0205 + 0.10 * (across - side) - 6 * (across - side - 0.004) ** 2
        brow = np.exp(-(((up - height) / (0.0036 + 0.0012 * man)) ** 2)) * smoothstep(
            side - 0.022, side - 0.014, across
        )
        paint(brows, 0.95 * brow * smoothstep(side + 0.026, side + 0.016, across) * face)
        return replace(layer, tints=tints)

    def eyeballs(self, vertices: np.ndarray, look: Look) -> list[Layer]:
        layers = []
        for group, centre in zip(("helper-l-eye", "helper-r-eye"), self.eyes, strict=True):
            layer = group_layer(SKIN, group, vertices, 1)
            away = layer.vertices - centre
            radius = np.linalg.norm(away, axis=1)
            aside = np.hypot(away[:, 0], away[:, 1]) / radius.max() + (away[:, 2] < 0)
            colour = np.full((len(away), 3), 0.62)
            iris = 1 - smoothstep(0.46, 0.56, aside)[:, None]
            colour += (look.colours[9] - colour) * iris
            colour *= 1 - 0.9 * (1 - smoothstep(0.18, 0.28, aside)[:, None])
            layers.append(replace(layer, tints=np.hstack([colour, np.ones((len(away), 1))])))
        return layers
