"""What the pages point at is there: files, links, headings, modules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "experiments/**/*.md", ".github/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
FILE = re.compile(r"`((?:src|tests|conf|docs|benchmarks|experiments|examples)/[\w./-]*)`")
# A reader of the repository has no others: words that point at papers of the authors' own.
UNKNOWN = re.compile(r"\bSEED\b|\bthe seed's\b|\bREVIEW\b|DESIGN\.md|\.\./shared")


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def headings(path: Path) -> set[str]:
    return {slug(found) for found in re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    text = re.sub(r"^ {4,}.*$|`[^`]*`", "", path.read_text(), flags=re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in headings(linked), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_files_and_modules_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = {name for name in FILE.findall(text) if "NAME" not in name}
    assert {name for name in named if not (ROOT / name).exists()} == set()
    for module in set(re.findall(r"python -m ((?:src|benchmarks|experiments)(?:\.\w+)*)", text)):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module


def test_no_text_points_at_what_a_reader_does_not_have() -> None:
    folders = ("src", "conf", "docs", "experiments", "benchmarks")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = [path for path in paths if path.suffix in {".py", ".md", ".yaml"}]
    found = {
        str(path.relative_to(ROOT)): match[0]
        for path in [*texts, *(ROOT / page for page in PAGES)]
        if (match := UNKNOWN.search(path.read_text()))
    }
    assert found == {}
