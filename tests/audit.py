"""Known holes in the packages of constraints.txt: what pip-audit finds, and whether there is a version without.

    make audit    # pip-audit -r constraints.txt … --format json | python tests/audit.py

Exit status 1 where a fixed version is out: it is to be taken, with its tests. A hole without a fix is only said. 2 where no
package could be looked up, as behind an index that knows of no holes.
"""

import json
import sys
from typing import Any


def holes(report: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """(package and version, the hole's id, versions without it) of a report of pip-audit's."""
    return [
        (f"{package['name']}=={package['version']}", hole["id"], hole["fix_versions"])
        for package in report["dependencies"]
        for hole in package.get("vulns", [])
    ]


def main() -> int:
    report = json.load(sys.stdin)
    known = holes(report)
    for package, hole, fixes in known:
        print(f"{package}: {hole}: {'fixed in ' + ', '.join(fixes) if fixes else 'no fix yet'}")
    skipped = [package["name"] for package in report["dependencies"] if "skip_reason" in package]
    print(f"{len(report['dependencies'])} packages, {len(skipped)} not looked up, {len(known)} known holes")
    if len(skipped) == len(report["dependencies"]):
        print(
            "the index that pip-audit asks knows none of them, so nothing was audited: run it where PyPI itself is reached"
        )
        return 2
    return int(any(fixes for _, _, fixes in known))


if __name__ == "__main__":
    sys.exit(main())
