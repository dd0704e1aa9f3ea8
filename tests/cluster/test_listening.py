"""What SECURITY.md says listens where, beside the sockets of a running cluster with its endpoint."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cluster.running import CHECKOUT
from tests.processes import listening, marked, sockets

pytestmark = pytest.mark.cluster
# As the kernel writes them: 127.0.0.1, plain and mapped into IPv6.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
# How a process is told, by its command line; the first that fits.
KINDS = {
    "monitor": r"_private/monitor\.py",
    "gcs_server": r"gcs_server",
    "raylet": r"raylet/raylet",
    "replica": r"(?i)replica",
    "haproxy": r"haproxy",
    "client": r"util/client/server|ray\.util\.client",
    "agent": r"(?i)agent",
    "dashboard": r"(?i)dashboard",
    "worker": r"^ray::|default_worker",
    "mlflow": r"mlflow",
}


def documented() -> dict[str, str]:
    """Address by process, as the table has it."""
    return dict(re.findall(r"^\| `(\w+)`[^|]*\| ([a-z ]+?) +\|", (CHECKOUT / "SECURITY.md").read_text(), re.MULTILINE))


def test_the_table_names_every_process_that_listens_and_where(cluster, endpoint):
    ports = {urlsplit(cluster.mlflow_uri).port: "mlflow"}
    open_sockets = listening()
    seen: dict[str, set[str]] = {}
    for process in marked(str(cluster.token_path)):
        try:
            command = Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it ended meanwhile
        if "moto.server" in command:
            continue  # other tests' object store, which has the session's environment
        for inode in sockets(process) & open_sockets.keys():
            kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, command)), command)
            seen.setdefault(kind, set()).add(open_sockets[inode][0])
    for address, port in open_sockets.values():
        if port in ports:
            seen.setdefault(ports[port], set()).add(address)
    table = documented()
    assert set(table) == set(KINDS)
    assert {kind: sorted(addresses) for kind, addresses in seen.items() if kind not in table} == {}
    for kind, addresses in seen.items():
        if table[kind] == "loopback":
            assert addresses <= LOOPBACK, f"{kind} listens on {sorted(addresses - LOOPBACK)}"
        else:
            assert not addresses <= LOOPBACK, f"{kind} is on loopback only: the table may say so"
    assert set(table) - set(seen) <= {"client", "agent"}, "of these none was there"
