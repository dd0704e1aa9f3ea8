"""The table of what files share names files that are there, and all that ask for the endpoint."""

import re

from cluster.running import CHECKOUT
from tests.schedule import LONG, SHARED, shared


def test_the_tables_name_what_is_there():
    named = {file for files in SHARED.values() for file in files} | set(LONG)
    assert [file for file in named if not (CHECKOUT / file).exists()] == []


def test_all_that_ask_for_the_endpoint_are_named():
    asking = re.compile(r"^(?:async )?def \w+\([^)]*\bendpoint\b", re.MULTILINE)
    files = [path for path in (CHECKOUT / "tests").rglob("test_*.py") if asking.search(path.read_text())]
    names = [path.relative_to(CHECKOUT).as_posix() for path in files]
    assert names and [name for name in names if shared(name) != "endpoint"] == []
