"""What the documents promise about themselves: links lead somewhere, decisions keep their form."""

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(CHECKOUT.glob("*.md")), *sorted((CHECKOUT / "docs").rglob("*.md"))]
DECISIONS = [page for page in PAGES if page.parent.name == "decisions" and page.name != "README.md"]
PARTS = ("Decision", "Why", "Evidence")


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_to_files_and_headings_that_there_are(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not heading or heading in anchors(linked), target


def test_documents_that_code_and_config_name_exist():
    sources = [p for kind in ("py", "yaml", "json") for p in CHECKOUT.glob(f"[!.]*/**/*.{kind}")]
    named = {name for source in (*sources, *PAGES) for name in re.findall(r"docs/[\w/-]+\.md", source.read_text())}
    assert named and [name for name in sorted(named) if not (CHECKOUT / name).exists()] == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_a_decision_has_its_reason_and_its_evidence_in_eight_lines(page):
    _, *entries = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)
    assert entries
    for entry in entries:
        title, *lines = filter(None, entry.splitlines())
        assert tuple(re.findall(r"^- \*\*(\w+):\*\*", "\n".join(lines), re.MULTILINE)) == PARTS, title
        assert len(lines) <= 8, title
    assert f"({page.name})" in (page.parent / "README.md").read_text()
