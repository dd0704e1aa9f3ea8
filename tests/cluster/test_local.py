"""The embedded cluster: real Ray, real MLflow, started, used and ended; no process may outlive it."""

import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from cluster import local, network, running, supervisor
from cluster.local import local_cluster
from cluster.running import CHECKOUT, HOST, Cluster, free_ports
from cluster.servers import mlflow_server
from refiner import UserError
from tests.processes import command_of, heed_interrupts, marked
from tests.waiting import PATIENCE_S, answers, get, wait_for

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_command_that_started_it(number, tmp_path):
    mark = f"MARK_{uuid.uuid4().hex}"
    # SPT_NOENV: Ray's workers would otherwise write their title over their environment, and hide from this test
    env = {**os.environ, mark: "1", "SPT_NOENV": "1"}
    # the command leaves a daemon of its own on the cluster: a detached actor
    script = (
        "import ray, time, pathlib; ray.init();"
        "actor = ray.remote(type('Idle', (), {})).options(name='idle', lifetime='detached').remote();"
        "ray.get(actor.__ray_ready__.remote()); pathlib.Path('ready').touch(); time.sleep(600)"
    )
    command = [sys.executable, "-m", "cluster.local", "--state", str(tmp_path / "state"), "--"]
    driver = subprocess.Popen(
        [*command, sys.executable, "-c", script],
        env={**env, "PYTHONPATH": str(CHECKOUT)},
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )
    wait_for(lambda: (tmp_path / "ready").exists() or driver.poll() is not None)
    assert len(marked(mark)) > 8  # or the test looks for nothing
    (os.killpg if number == signal.SIGINT else os.kill)(driver.pid, number)
    driver.wait(PATIENCE_S)
    wait_for(lambda: not marked(mark))
    assert not (tmp_path / "state/cluster.json").exists() or number == signal.SIGKILL


def test_a_cluster_that_is_kept_stays_and_stops_when_told_to(tmp_path):
    mark = f"MARK_{uuid.uuid4().hex}"
    env = {**os.environ, mark: "1", "SPT_NOENV": "1"}
    command = [sys.executable, "-m", "cluster.local", "--state", str(tmp_path)]
    kept = subprocess.run([*command, "--keep"], env=env, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    exports = dict(
        line.strip().removeprefix("export ").split("=", 1) for line in kept.stderr.splitlines() if "export" in line
    )
    cluster = Cluster.from_environment(exports)
    assert get(f"{cluster.mlflow_uri}/health").status_code == 200

    with pytest.raises(UserError, match="already up"), local_cluster(tmp_path):
        pass

    subprocess.run([*command, "--stop"], env=env, cwd=CHECKOUT, check=True)
    wait_for(lambda: not marked(mark))
    assert not cluster.token_path.exists()
    again = subprocess.run([*command, "--stop"], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    assert again.returncode == 2 and again.stderr.startswith("error: no cluster is up on ")


def test_without_ray_there_is_no_cluster(tmp_path):
    mark = f"MARK_{uuid.uuid4().hex}"
    env = {**os.environ, mark: "1", "SPT_NOENV": "1", "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "cluster.local", "--state", str(tmp_path / "state"), "--"]
    said = tmp_path / "said"
    with said.open("w") as out:
        driver = subprocess.Popen([*command, "sleep", "600"], env=env, cwd=tmp_path, stderr=out)
    try:
        wait_for(lambda: driver.poll() is not None or any(command_of(p) == ["sleep", "600"] for p in marked(mark)))
        gcs = [p for p in marked(mark) if Path(command_of(p)[0]).name == "gcs_server"]
        os.kill(*gcs, signal.SIGKILL)
        # what stays are the command, which is the user's, and who waits for it
        wait_for(lambda: len(marked(mark)) == 2)
        wait_for(lambda: "ray ended by itself (exit status 1), and so all of the cluster" in said.read_text())
    finally:
        driver.terminate()
        driver.wait(PATIENCE_S)


def test_a_job_runs_in_a_small_upload_of_the_checkout_and_its_last_json_line_comes_back(
    cluster, monkeypatch, capfd, copy_checkout, tmp_path
):
    monkeypatch.setattr(running, "CHECKOUT", copy_checkout(tmp_path))  # which the cluster does not have yet
    (tmp_path / "data").mkdir()
    (tmp_path / "data/videos.bin").write_bytes(bytes(20_000_000))
    script = (
        "import json, pathlib, rayjobs, sys, os;"
        "size = sum(p.stat().st_size for p in pathlib.Path().rglob('*') if p.is_file());"
        "print(json.dumps({'size': size, 'python': sys.executable, 'names': sorted(os.listdir()), 'env': os.environ['X'],"
        " 'mlflow': os.environ['MLFLOW_TRACKING_URI']})); print('not json')"
    )
    summary = cluster.submit(f'python -c "{script}"', env={"X": "y"})
    assert summary["env"] == "y"
    assert summary["mlflow"] == cluster.mlflow_uri
    assert Path(summary["python"]).resolve() == Path(sys.executable).resolve()
    assert {"refiner", "rayjobs", "serve"} <= set(summary["names"])
    assert not {".git", "data", "runs", ".venv", "tests", "docs", "benchmarks"} & set(summary["names"])
    assert 0.5e6 < summary["size"] < 8e6  # half of it is the model in the box
    (shown,) = re.findall(rf"^uploading {tmp_path}: ([0-9.]+) MB$", capfd.readouterr().err, re.MULTILINE)
    assert float(shown) == pytest.approx(summary["size"] / 1e6, abs=0.3)  # with the archive's own words


def test_a_failed_job_raises_its_own_line_of_error(cluster, capfd):
    job = "python -m rayjobs.launch_is_no_job"
    with pytest.raises(UserError, match=r"No module named rayjobs\.launch_is_no_job"):
        cluster.submit(job)
    with pytest.raises(UserError, match=r"failed \(FAILED\): no videos in x$"):
        cluster.submit("""python -c 'import sys; print("error: no videos in x"); print("more"); sys.exit(2)'""")
    assert "no videos in x" in capfd.readouterr().err


def test_nothing_is_served_without_the_token_or_under_another_name(cluster):
    assert get(f"{cluster.dashboard_url}/api/jobs/").status_code == 401
    assert cluster.token_path.stat().st_mode & 0o077 == 0
    foreign = get(f"{cluster.mlflow_uri}/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example"})
    assert foreign.status_code == 403


def test_a_server_that_does_not_start_is_named_with_the_end_of_its_log(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is not a database")
    reason = r"(?s)mlflow ended at once; the end of .*mlflow.log reads:.*not a database"
    with pytest.raises(UserError, match=reason), local_cluster(tmp_path, usual_ports=False):
        pass
    assert (tmp_path / "supervisor.log").read_text().startswith("mlflow ended by itself (exit status ")


def test_clusters_that_start_at_once_have_ports_of_their_own(tmp_path):
    """Before any of their servers listens, and as long as the cluster lives, whatever of it is being started again."""
    holders = []
    try:
        ports: list[set[str]] = []
        for number in range(2):
            state = tmp_path / str(number)
            state.mkdir()
            cluster, holder, _ = local._start(state, usual_ports=True, gpus=0, nodes=1)
            holders.append(holder)
            addresses = cluster.ray_address, cluster.dashboard_url, cluster.mlflow_uri
            ports.append({address.rpartition(":")[2] for address in addresses})
        assert len(ports[0] | ports[1]) == 6
        (mlflow,) = free_ports([int(cluster.mlflow_uri.rpartition(":")[2])])
        assert str(mlflow) not in ports[1]
    finally:
        for holder in holders:
            local._orders(holder).close()
            holder.wait(PATIENCE_S)


def test_a_claim_ends_with_its_holder():
    claims = []
    (port,) = free_ports([0], claims)
    assert free_ports([port]) != [port]
    claims[0].close()
    assert free_ports([port]) == [port]


def test_a_registry_that_was_killed_while_it_was_made_is_made_anew(tmp_path):
    (port,) = free_ports([0])
    database, part = tmp_path / "mlflow.db", tmp_path / "mlflow.part"
    command = mlflow_server(tmp_path, HOST, port)["argv"]
    for enough in (1, 60_000, 400_000):  # bytes of it: before, within, and late in MLflow's steps
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            wait_for(lambda enough=enough: _size(part) >= enough or server.poll() is not None)
            assert server.poll() is None and not database.exists()
            server.kill()
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/health") or server.poll() is not None)
            assert server.poll() is None, (tmp_path / "log").read_text()[-3000:]
            assert database.exists() and not part.exists()
        finally:
            below = list(supervisor.processes_below(server.pid))
            supervisor.send(signal.SIGKILL, [server.pid, *below])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (local.Options(namespaces=True), "--nodes 2 or more"),
        (local.Options(namespaces=True, nodes=3, keep=True), "cannot be combined with --keep"),
    ],
)
@pytest.mark.skipif(not network.available(), reason="needs root and iproute2 to make a network")
def test_hosts_that_cannot_be_are_one_sentence(options, reason):
    with pytest.raises(UserError, match=reason):
        local._run(["true"], options)
