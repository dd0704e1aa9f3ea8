"""The exported refiner answers as `DepthRefiner` does for single frames: in PyTorch, ONNX Runtime, LiteRT, MediaPipe."""

import itertools
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import task as benchmark
from refiner import DepthRefiner, UserError
from refiner.data import video
from refiner.estimators import mediapipe_assets as assets
from refiner.estimators.mediapipe_assets import model_path
from refiner.export import lowering, standalone, task
from refiner.export.graph import Graph
from refiner.export.landmarks import LandmarkRefiner
from refiner.model.network import PoseAwareDepthRefiner
from refiner.model.presets import PRESETS
from refiner.skeleton import CARRIED_BY, FROM_MEDIAPIPE, JOINTS, NUM_LANDMARKS, root_centred, to_coco

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
CLOSE_M = 2e-5


def trained(preset: str) -> DepthRefiner:
    """A network of a preset with random weights, whose corrections are of centimetres."""
    torch.manual_seed(1)
    model = PoseAwareDepthRefiner(PRESETS[preset])
    for head in (model.encoder.correction[-1], model.encoder.scale[-1]):
        nn.init.normal_(head.weight, std=0.1)
    return DepthRefiner.of(model)


@pytest.fixture(scope="module", params=["in the box", "baseline"])
def refiner(request) -> DepthRefiner:
    return DepthRefiner(device="cpu") if request.param == "in the box" else trained(request.param)


@pytest.fixture(scope="module")
def poses(make_pairs) -> dict[str, np.ndarray]:
    """World landmarks, visibility and pixels of invented people whose hands, feet and faces have 33 landmarks."""
    pairs, rng = make_pairs(4, cameras=4, frames=3), np.random.default_rng(7)
    world = pairs.corrupted[:, CARRIED_BY] + rng.normal(0, 0.05, (1, NUM_LANDMARKS, 3))
    world[:, FROM_MEDIAPIPE] = pairs.corrupted
    turn = rng.uniform(-np.pi, np.pi, len(world))  # people lie and hang, too
    c, s = np.cos(turn)[:, None], np.sin(turn)[:, None]
    x, y = world[..., 0].copy(), world[..., 1].copy()
    world[..., 0], world[..., 1] = c * x - s * y, s * x + c * y
    points = world[..., :2] * 400 + rng.normal(0, 4, (*world.shape[:2], 2)) + (600, 300)
    world += rng.normal(0, 0.03, (len(world), 1, 3))  # hips are not quite at the origin
    return {
        "world": world.astype(np.float32), "points": points.astype(np.float32),
        "visibility": rng.uniform(0, 1, world.shape[:2]).astype(np.float32),
    }  # fmt: skip


def expected(refiner: DepthRefiner, poses: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    answer = refiner.predict(poses["world"], poses["visibility"], image_points=poses["points"], recognise=False)
    return answer.poses, answer.confidence


def check(answer: tuple[np.ndarray, np.ndarray], refiner: DepthRefiner, poses: dict[str, np.ndarray]) -> None:
    refined, confidence = expected(refiner, poses)
    assert np.linalg.norm(refined - root_centred(to_coco(poses["world"])), axis=-1).mean() > 0.01  # it does something
    assert np.abs(to_coco(answer[0]) - refined).max() < CLOSE_M
    assert np.abs(answer[1] - confidence).max() < 1e-3


def test_thirty_three_landmarks_are_refined_as_seventeen_joints_are(refiner, poses):
    inputs = (torch.from_numpy(poses[name]) for name in standalone.INPUTS)
    with torch.inference_mode():
        refined, confidence = LandmarkRefiner(refiner.model)(*inputs)
    check((refined.numpy(), confidence.numpy()), refiner, poses)
    # every other landmark keeps its place beside the joint that carries it
    before = poses["world"] - to_coco(poses["world"])[:, CARRIED_BY]
    after = refined.numpy() - to_coco(refined.numpy())[:, CARRIED_BY]
    assert np.abs(after - before).max() < CLOSE_M


def test_hands_go_with_wrists_feet_with_ankles_and_the_mouth_with_the_nose():
    carriers = [JOINTS[joint] for joint in CARRIED_BY]
    assert [carriers[i] for i in FROM_MEDIAPIPE] == list(JOINTS)
    assert {carriers[i] for i in (17, 19, 21)} == {"left_wrist"} and {carriers[i] for i in (18, 20, 22)} == {
        "right_wrist"
    }
    assert {carriers[i] for i in (29, 31)} == {"left_ankle"} and {carriers[i] for i in (30, 32)} == {"right_ankle"}
    assert {carriers[i] for i in (1, 3)} == {"left_eye"} and {carriers[i] for i in (4, 6)} == {"right_eye"}
    assert {carriers[i] for i in (9, 10)} == {"nose"}


def test_litert_computes_what_pytorch_does(refiner, poses):
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=standalone.tflite(refiner)).get_signature_runner()
    assert {name: tuple(d["shape"]) for name, d in run.get_input_details().items()} == {
        name: (1, *shape) for name, shape in standalone.INPUTS.items()
    }
    answers = [run(**{name: poses[name][i : i + 1] for name in standalone.INPUTS}) for i in range(len(poses["world"]))]
    check(tuple(np.concatenate([a[name] for a in answers]) for name in standalone.OUTPUTS), refiner, poses)


def test_onnx_runtime_computes_what_pytorch_does_for_any_number_of_poses(refiner, poses, tmp_path):
    import onnxruntime

    standalone.write_onnx(refiner, tmp_path / "refiner.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "refiner.onnx", providers=["CPUExecutionProvider"])
    names = [field.name for field in session.get_inputs()]
    assert names == list(standalone.INPUTS)
    for count in (1, len(poses["world"])):
        part = {name: values[:count] for name, values in poses.items()}
        check(tuple(session.run(None, {name: part[name] for name in names})), refiner, part)


def test_what_has_no_form_in_tflite_is_named():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.erfinv(x)

    graph = Graph()
    with pytest.raises(NotImplementedError, match="erfinv"):
        lowering.append(graph, Odd(), [graph.input("x", (1, 3))])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("task") / "refined.task"
    path.write_bytes(task.bundle(DepthRefiner(device="cpu"), model_path()))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> list[video.Frame]:
    """A rendered dancer, a second of her."""
    from studio.dataset import Spec, plan

    root = tmp_path_factory.mktemp("clip")
    (take, *_) = plan(Spec(sequences=1, seconds=1, fps=24, seed=4, size=(640, 360)))
    take.film(root, ["c01"])
    return list(video.frames(take.video(root, "c01")))


@pytest.fixture(scope="module")
def looked(bundle, clip) -> dict[str, benchmark.Seen]:
    return benchmark.look(clip, model_path(), bundle)


@pytest.mark.parametrize("mode", [benchmark.IMAGE, benchmark.TRACKED])
def test_mediapipe_with_that_file_answers_as_the_refiner_on_its_own_file(looked, clip, mode):
    distances, moved = benchmark.apart(looked[mode], DepthRefiner(device="cpu"))
    assert len(distances) > len(clip) / 2 and moved.mean() > 20
    assert distances.mean() <= benchmark.PARITY_MM


def test_with_mediapipes_filters_behind_it_the_answer_stays_near(looked):
    distances, moved = benchmark.apart(looked[benchmark.VIDEO], DepthRefiner(device="cpu"))
    assert distances.mean() < 0.5 * moved.mean()


def test_image_landmarks_stay_so_a_video_is_followed_by_the_same_crops(looked):
    for seen in looked.values():
        for stock, refined in zip(seen.stock, seen.refined, strict=True):
            assert np.array_equal(stock.image, refined.image) and np.array_equal(stock.presence, refined.presence)
    for stock, refined in zip(looked[benchmark.VIDEO].stock, looked[benchmark.VIDEO].refined, strict=True):
        assert np.array_equal(stock.visibility, refined.visibility)


def test_real_frames_agree_too(bundle, real_people):
    frames = itertools.islice(video.frames(real_people / "cam01.mp4"), 0, 40, 8)
    seen = benchmark.look(frames, model_path(), bundle)
    for mode in (benchmark.IMAGE, benchmark.TRACKED):
        assert benchmark.apart(seen[mode], DepthRefiner(device="cpu"))[0].mean() <= benchmark.PARITY_MM, mode


def test_the_bundle_is_of_builtin_operators_and_says_what_it_is(bundle):
    from mediapipe.tasks.metadata import schema_py_generated as schema

    with zipfile.ZipFile(bundle) as content:
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in content.infolist())
        assert json.loads(content.read(task.CARD)) == task.read_card(bundle)
        network = schema.ModelT.InitFromPackedBuf(content.read(assets.LANDMARKS), 0)
    assert not [code for code in network.operatorCodes if code.builtinCode == schema.BuiltinOperator.CUSTOM]
    described = assets.description(network)
    assert described.name and b"17 joints" in described.description and b"Apache-2.0" in described.license
    assert described.subgraphMetadata[0].inputTensorMetadata[0].processUnits  # MediaPipe's normalisation is still there
    card = task.read_card(bundle)
    assert (
        card["refiner"]["name"] == "pose-depth-refiner"
        and card["refiner"]["card"]["trained_on"]
        and card["pose_model"]["sha256"]
    )
    assert task.read_card(model_path()) is None
    assert bundle.read_bytes() == task.bundle(DepthRefiner(device="cpu"), model_path())
    assert bundle.stat().st_size - model_path().stat().st_size < 2_500_000


def refiner_command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "refiner.cli", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip


def test_the_command_writes_what_it_names_and_writes_over_nothing(tmp_path, bundle):
    done = refiner_command("export", "--to", "task", "tflite", "--out", "made", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {"pose_landmarker_full_refined.task", "pose_depth_refiner.tflite"}
    assert {path.name for path in (tmp_path / "made").iterdir()} == names
    assert all(name in done.stdout for name in names)
    assert (tmp_path / "made/pose_landmarker_full_refined.task").read_bytes() == bundle.read_bytes()
    again = refiner_command("export", "--to", "tflite", "--out", "made", cwd=tmp_path)
    assert again.returncode == 2 and "is there already: --force" in again.stderr
    nothing = refiner_command("export", "--to", "--out", "made", cwd=tmp_path)
    assert nothing.returncode == 2 and "Traceback" not in nothing.stderr


def test_what_is_no_pose_landmarker_or_refined_already_is_one_sentence(tmp_path, bundle):
    with pytest.raises(UserError, match="has a refiner inside already"):
        task.bundle(DepthRefiner(device="cpu"), bundle)
    text = tmp_path / "text.task"
    text.write_text("no model")
    with pytest.raises(UserError, match=r"text\.task is not one of"):
        task.bundle(DepthRefiner(device="cpu"), text)
    with zipfile.ZipFile(model_path()) as content:
        swapped = {assets.DETECTOR: content.read(assets.LANDMARKS), assets.LANDMARKS: content.read(assets.DETECTOR)}
    text.write_bytes(assets.bundled(swapped))
    with pytest.raises(UserError, match="landmark network of another kind"):
        task.bundle(DepthRefiner(device="cpu"), text)
