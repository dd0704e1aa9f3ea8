"""make audit: what it makes of pip-audit's report."""

import io
import json
import sys

import pytest

from tests import audit


def report(*fixes: list[str]) -> str:
    vulns = [{"id": f"PYSEC-{i}", "fix_versions": versions} for i, versions in enumerate(fixes)]
    packages = [{"name": "a", "version": "1", "vulns": vulns}, {"name": "b", "skip_reason": "unknown"}]
    return json.dumps({"dependencies": packages})


@pytest.mark.parametrize(("fixes", "status"), [((), 0), (([],), 0), (([], ["2"]), 1)])
def test_a_hole_with_a_fix_fails(fixes, status, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(report(*fixes)))
    assert audit.main() == status
    said = capsys.readouterr().out
    assert f"2 packages, 1 not looked up, {len(fixes)} known holes" in said
    assert ("a==1: PYSEC-1: fixed in 2" in said) == bool(status)


def test_an_audit_that_looked_nothing_up_is_none(monkeypatch, capsys):
    packages = [{"name": "a", "skip_reason": "unknown"}, {"name": "b", "skip_reason": "unknown"}]
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"dependencies": packages})))
    assert audit.main() == 2
    assert "nothing was audited" in capsys.readouterr().out
