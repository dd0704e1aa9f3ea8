"""The demo's report: a page with pictures under its folder, and the short table for the terminal.

Everything in it is measured on what came back over HTTP for held-out clips. Used by `rayjobs.demo`.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rayjobs.visualize import frame_of
from refiner.data import aistpp
from refiner.data.records import Pairs
from refiner.evaluation import metrics, plots
from refiner.evaluation.compare import REFINED, Evaluation
from refiner.evaluation.skeletons import skeletons
from refiner.evaluation.style import LABELS
from refiner.inference.depth_refiner import Refinement

SHOWN = ("mediapipe", "zero", "bias", "azimuth_bias", "smoothing", "ridge", REFINED)
HEADINGS = ("", "mean |Δz| cm", "95 % interval", "MPJPE cm", "bone length CV")


def rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """One row for each method, in the order from what is there for nothing to what was trained."""
    return [
        (
            "refined, over HTTP" if name == REFINED else LABELS[name],
            f"{row['depth_cm']:.2f}",
            f"{row['depth_low_cm']:.2f} – {row['depth_high_cm']:.2f}",
            f"{row['mpjpe_cm']:.2f}",
            f"{row['bone_cv']:.1%}",
        )
        for name in SHOWN
        if (row := evaluation.methods.get(name)) is not None
    ]


def table(evaluation: Evaluation) -> str:
    """The table, at most 80 columns wide."""
    lines = [HEADINGS, *rows(evaluation)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    text = ["   ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
            for line in lines]  # fmt: skip
    text.insert(1, "─" * len(text[0]))
    what = f"{evaluation.pairs:,} poses of {evaluation.sequences} sequences: held-out dancers and choreographies"
    return "\n".join(["", what, "", *text])


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    folder: Path
    dataset: Path
    observations: Path
    pairs: Pairs
    """The held-out pairs."""
    answer: Refinement
    """What the endpoint made of them."""
    evaluation: Evaluation
    model: Mapping[str, str]
    history: list[dict[str, float]]
    """Each epoch's figures of the training of this run."""

    def draw(self) -> None:
        """Writes the pictures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plots.draw_all(self.evaluation, self.folder)
        plots.loss_curve(self.history, self.folder / "loss.png")
        self._draw_frame(self._telling_frame())

    def _telling_frame(self) -> int:
        """Row of the frame to show: among the third on which MediaPipe is most wrong, the one with the median gain."""
        before = metrics.depth_error(self.pairs.corrupted, self.pairs.ground_truth).mean(-1)
        gain = before - metrics.depth_error(self.answer.poses, self.pairs.ground_truth).mean(-1)
        wrong = np.flatnonzero(before >= np.quantile(before, 2 / 3))
        return int(wrong[np.argsort(gain[wrong])[len(wrong) // 2]])

    def _draw_frame(self, row: int) -> None:
        sequence, camera = self.pairs.sequence[row], self.pairs.camera[row]
        name = str(aistpp.Name.parse(sequence).with_camera(camera))
        skeletons(
            *frame_of(self.dataset / "videos", self.observations, name, int(self.pairs.frame[row])),
            self.pairs.corrupted[row],
            self.answer.poses[row],
            self.folder / "frame.png",
            self.pairs.ground_truth[row],
        )

    def write(self, seconds: Mapping[str, float]) -> Path:
        """Writes index.html."""
        import jinja2

        mediapipe, refined = self.evaluation.methods["mediapipe"], self.evaluation.methods[REFINED]
        tiles = [
            (
                f"{refined['depth_cm'] / mediapipe['depth_cm'] - 1:+.0%}".replace("-", "−"),
                "mean depth error against MediaPipe",
            ),
            (f"{mediapipe['depth_cm']:.1f} → {refined['depth_cm']:.1f} cm", "mean |Δz| over 17 joints"),
            (f"{mediapipe['bone_cv']:.1%} → {refined['bone_cv']:.1%}", "variation of the bone lengths"),
            (f"{self.evaluation.confidence['ece']:.3f}", "calibration error (ECE) of the confidence"),
        ]
        pictures = [
            (
                "frame.png",
                "A held-out frame: of the third on which MediaPipe is most wrong, the one with the median gain.",
            ),
            ("depth_by_view_angle.png", "Mean depth error by the way the body faces, with intervals over sequences."),
            ("loss.png", "This run's training."),
            ("depth_by_joint.png", "Mean depth error by joint."),
            ("reliability.png", "How often a joint is within 5 cm, by how sure the refiner was."),
            ("depth_by_slice.png", "Mean depth error by kind of motion, view angle, visibility, camera and genre."),
        ]
        page = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
        ).get_template("report.html.j2")
        path = self.folder / "index.html"
        path.write_text(
            page.render(
                title="MediaPipe's depth, put right",
                lead=f"{self.model['name']} version {self.model['version']}, asked over HTTP about "
                f"{self.evaluation.pairs:,} poses of {self.evaluation.sequences} sequences whose dancers and "
                "choreographies no training saw.",
                tiles=[{"figure": figure, "meaning": meaning} for figure, meaning in tiles],
                pictures=[{"file": file, "caption": caption} for file, caption in pictures],
                table={
                    "columns": HEADINGS,
                    "rows": [{"cells": r, "ours": r[0].startswith("refined")} for r in rows(self.evaluation)],
                    "note": "Root-centred, in the virtual camera frame. Intervals: 95 %, bootstrap over sequences. "
                    "“z = 0” puts every joint at the hips' depth: a figure that does not beat it says nothing.",
                },
                seconds=seconds,
                footnote=f"Rendered dancers, real MediaPipe. Python {sys.version.split()[0]}.",
            )
        )
        return path
