"""Exporting: replicas that start together on one machine export once."""

import itertools
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from refiner import DepthRefiner, UserError
from refiner.inference import onnx
from refiner.model.checkpoint import WEIGHTS_FILE, save_checkpoint
from refiner.model.config import RefinerConfig
from refiner.model.network import PoseAwareDepthRefiner


def test_who_exports_at_the_same_time_waits_for_the_first(tmp_path, monkeypatch):
    """The child is a stand-in that takes its time: what it would write is tried in tests/serve/test_endpoint.py."""
    started: list[str] = []

    def child(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        started.append(command[-1])
        time.sleep(0.3)
        Path(command[-1]).write_bytes(b"network")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(onnx.subprocess, "run", child)
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(onnx.export, [tmp_path] * 4))
    assert set(written) == {tmp_path / onnx.FILE} and len(started) == 1
    assert [path.name for path in tmp_path.iterdir()] == [onnx.FILE]


def test_one_that_fails_does_not_keep_the_next_from_trying(tmp_path, monkeypatch):
    codes = iter([1, 0])

    def child(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if code := next(codes):
            return subprocess.CompletedProcess(command, code, "", "no such operator")
        Path(command[-1]).write_bytes(b"network")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(onnx.subprocess, "run", child)
    with pytest.raises(UserError, match="no such operator"):
        onnx.export(tmp_path)
    assert onnx.export(tmp_path).read_bytes() == b"network"


def test_other_weights_in_the_same_folder_are_exported_anew(tmp_path, monkeypatch):
    """As after an upgrade of the package, which leaves beside the new model what was made of the old one."""
    networks = iter([b"old", b"new"])

    def child(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        Path(command[-1]).write_bytes(next(networks))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(onnx.subprocess, "run", child)
    weights = tmp_path / WEIGHTS_FILE
    weights.touch()
    assert onnx.export(tmp_path).read_bytes() == onnx.export(tmp_path).read_bytes() == b"old"
    later = (tmp_path / onnx.FILE).stat().st_mtime + 1
    os.utime(weights, (later, later))
    assert onnx.export(tmp_path).read_bytes() == b"new"


@pytest.mark.slow
def test_a_network_that_knows_the_camera_pitch_says_the_same_on_onnx_runtime(tmp_path, make_pairs):
    config = RefinerConfig(encoder="whole_pose", width=32, layers=1, camera_pitch=True, upright=True, symmetric=True)
    model = PoseAwareDepthRefiner(config).eval()
    torch.nn.init.normal_(model.encoder.correction[-1].weight, std=0.3)
    refiner, poses = DepthRefiner(save_checkpoint(model, tmp_path), device="cpu"), make_pairs(1, frames=6).corrupted
    expected = [refiner.refine(poses, camera_pitch=pitch) for pitch in (None, 0, 20)]
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(expected, 2)) > 1e-3
    refiner.network = onnx.OnnxNetwork(onnx.export(tmp_path))
    for pitch, answer in zip((None, 0, 20), expected, strict=True):
        np.testing.assert_allclose(refiner.refine(poses, camera_pitch=pitch), answer, atol=1e-5)
