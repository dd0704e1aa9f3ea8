"""Sequences out of a seed, written as AIST++ lays its data out. `rayjobs.studio` calls this on every machine of a cluster.

A sequence's content depends on the seed and on its number alone: a larger dataset begins with the smaller one.

    spec     what a dataset is made from
    take     one sequence
    layout   all of them, and what lies around them on disk
    straight one sequence filmed straight into MediaPipe's landmark network
    ensemble several dancers before one camera
"""

from studio.dataset.ensemble import Ensemble
from studio.dataset.layout import MANIFEST, agreed, plan, prepare, record, write_text
from studio.dataset.spec import Spec
from studio.dataset.take import PATTERN, Take, setting_files

__all__ = [
    "MANIFEST", "PATTERN", "Ensemble", "Spec", "Take", "agreed", "plan", "prepare", "record", "setting_files",
    "write_text",
]  # fmt: skip
