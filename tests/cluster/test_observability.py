"""Dashboards, rules and alerts: that they are what the code makes, that they fire when they should, and that everything they
ask for is really there, answered by a real Prometheus.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import pytest
import yaml

from cluster import dashboards
from cluster.running import CHECKOUT, free_ports
from tests.connection import connection
from tests.waiting import get, post, wait_for

FOLDER = CHECKOUT / "cluster" / "observability"
RULES = yaml.safe_load((FOLDER / "rules.yaml").read_text())
# What Prometheus works out, and what a machine without a GPU has not.
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
ABSENT_HERE = {"ray_node_gpus_utilization"}
NAME = re.compile(r"\b(?:ray|pose)[_:][a-z0-9_:]+|\bup\b")


def expressions() -> dict[str, str]:
    """Everything that a dashboard or a rule asks for."""
    rules = {rule.get("record") or rule["alert"]: rule["expr"] for group in RULES["groups"] for rule in group["rules"]}
    panels = {
        f"{name}: {panel.title}: {expression}": expression
        for name, board in dashboards.DASHBOARDS.items()
        for panel in board
        for expression, _ in panel.queries
    }
    return rules | panels


def metric_names(expression: str) -> set[str]:
    return set(NAME.findall(re.sub(r"'[^']*'|\"[^\"]*\"", "", expression)))


@pytest.mark.parametrize("name", dashboards.DASHBOARDS)
def test_a_dashboard_is_what_the_code_makes(name):
    text = (FOLDER / "dashboards" / f"{name}.json").read_text()
    assert text == dashboards.rendered(name), "run python -m cluster.dashboards"
    board = json.loads(text)
    panels = dashboards.DASHBOARDS[name]
    assert [p["title"] for p in board["panels"]] == [p.title for p in panels]
    assert [[t["expr"] for t in p["targets"]] for p in board["panels"]] == [[q for q, _ in p.queries] for p in panels]


def test_no_dashboard_is_left_over():
    assert {path.stem for path in (FOLDER / "dashboards").glob("*.json")} == set(dashboards.DASHBOARDS)


def test_every_alert_has_its_paragraph_and_is_tried():
    alerts = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
    headings = re.findall(r"^### (\w+)$", (CHECKOUT / "docs/operations.md").read_text(), re.MULTILINE)
    assert headings == list(alerts)
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
    tests = yaml.safe_load((CHECKOUT / "tests/cluster/rules_test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {c["alertname"] for c in cases if c["exp_alerts"]} == set(alerts)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here: apt-get install prometheus")
def test_rules_fire_when_they_should():
    for command in (
        ["check", "rules", "cluster/observability/rules.yaml"],
        ["test", "rules", "tests/cluster/rules_test.yaml"],
    ):
        done = subprocess.run(["promtool", *command], cwd=CHECKOUT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here: apt-get install prometheus")
def test_prometheus_takes_its_configuration():
    done = subprocess.run(
        ["promtool", "check", "config", str(FOLDER / "prometheus.yml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- with everything running


@pytest.fixture(scope="module")
def prometheus(cluster, tmp_path_factory) -> Iterator[str]:
    """URL of a Prometheus that scrapes every node of the session's cluster, with the project's rules; jobs of this process
    stay connected, so that what they tell is not gone when they end.
    """
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not here: apt-get install prometheus")
    import ray

    with connection(cluster):
        targets = [f"{n['NodeManagerAddress']}:{n['MetricsExportPort']}" for n in ray.nodes() if n["Alive"]]
        folder = tmp_path_factory.mktemp("prometheus")
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "2s", "evaluation_interval": "2s"}
        config["rule_files"] = [str(FOLDER / "rules.yaml")]
        for job in config["scrape_configs"]:
            job.pop("dns_sd_configs")
            job["static_configs"] = [{"targets": targets}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (port,) = free_ports([0])
        command = [
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        with open(folder / "log", "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def ask(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """What it answered at any time in these minutes."""
    answer = get(f"{prometheus}/api/v1/query", params={"query": f"count_over_time(({expression})[20m:4s])"})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]["result"]


def wait_for_none(left: Callable[[], Collection[str]], sentence: str) -> None:
    """Until nothing is left, or the sentence and what still is."""
    latest: Collection[str] = ()

    def none() -> bool:
        nonlocal latest
        latest = left()
        return not latest

    try:
        wait_for(none, pause_s=2)
    except AssertionError:
        pytest.fail(f"{sentence} {sorted(latest)}")


@pytest.mark.survival
def test_everything_that_is_asked_for_is_there(prometheus, endpoint, cluster, make_pairs, tmp_path, request):
    """Requests, an extraction with a broken video, a training; then every panel and every rule."""
    from rayjobs import extract, train
    from rayjobs.progress import Progress
    from refiner import registry
    from refiner.data import records, video
    from refiner.training.trainer import TrainingConfig
    from serve.live import standing_poses

    for i in range(2):
        with video.VideoWriter(tmp_path / "videos" / f"v{i}.mp4", (128, 96), 30) as writer:
            for shade in range(3):
                writer.write(np.full((96, 128, 3), 100 + shade, dtype=np.uint8))
    (tmp_path / "videos" / "broken.mp4").write_text("no video")
    for number, split in enumerate(("train", "val")):
        pairs = make_pairs(2, seed=number, first=2 * number)
        records.write_atomically(pairs.to_table(), tmp_path / "pairs" / f"split={split}" / "a.parquet", {})

    summary = extract.run(extract.Options(videos=str(tmp_path / "videos"), out=str(tmp_path / "out"), actors=1))
    assert summary.failed == 1
    with Progress("sequences", 1, 1.0) as pairing:  # what counts no videos, as pairing and simulating do
        pairing.add(1, 1.0)
    # long enough that Ray, which gathers numbers every ten seconds, sees its worker
    training = TrainingConfig(epochs=100_000, max_seconds=45, patience=100_000, batch_size=16)
    options = train.Options(
        pairs=str(tmp_path / "pairs"),
        storage=str(tmp_path / "storage"),
        workers=1,
        preset="baseline",
        training=training,
    )
    trained = train.run(options)
    before = registry.get_alias(registry.NAME, registry.CHAMPION)
    assert trained.epochs > 0 and before is not None
    # a change of the model, and one that knows what it was trained on, so that drift can be told
    registry.set_alias(registry.NAME, registry.CHAMPION, trained.version)
    request.addfinalizer(lambda: registry.set_alias(registry.NAME, registry.CHAMPION, before))
    # 1,000 joints and more, so that drift is judged, too
    poses = {"poses": standing_poses(256).tolist(), "sequence": False}
    names = set().union(*map(metric_names, expressions().values())) - ABSENT_HERE
    absent = set(names)

    def missing() -> set[str]:
        post(f"{endpoint}/v1/refine", json=poses).raise_for_status()
        post(f"{endpoint}/v1/refine", json={"poses": poses["poses"][:1]}).raise_for_status()
        absent.intersection_update({name for name in absent if not ask(prometheus, name)})
        return absent

    wait_for_none(missing, "Prometheus never had")
    # what only counts what went wrong is empty here, and there is no GPU
    quiet = {rule["alert"] for g in RULES["groups"] for rule in g["rules"] if "alert" in rule}
    asked = {n: e for n, e in expressions().items() if n not in quiet and not metric_names(e) & ABSENT_HERE}

    def unanswered() -> dict[str, str]:
        missing()  # asks the endpoint, too
        for name in [name for name, expression in asked.items() if ask(prometheus, expression)]:
            del asked[name]
        return asked

    wait_for_none(unanswered, "Prometheus had no answer to")


def test_the_names_in_an_expression_are_found():
    names = metric_names('sum by (route) (rate(ray_a_total{x="ray_b"}[5m])) / pose:c:rate5m and up{job="ray"} == 0')
    assert names == {"ray_a_total", "pose:c:rate5m", "up"}
