"""Every measured figure of README.md and docs/ comes from a file of results.

These are under benchmarks/results/ and experiments/.

A comment below a paragraph or a table names the source of each figure in it::

    <!-- figures benchmarks/results/cpu_all.json
    41 ms = loading.12_megapixels.ours_ms_a_sample
    5.3 h = threshold_grid.plain_cpu_s_multiplied / 3600
    -->

On the left stands what the text says, on the right where the file has it, with a factor if the unit
differs. A figure of several numbers, ``0.44 (0.38 to 0.50)``, takes as many paths, separated by
commas. In a Markdown file of results a path is ``row | column`` of a table.

A number with a measured unit, or with three decimals as a score has, that stands in no such comment
is an error, unless ``STATED`` says why it needs none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
PAGES.insert(0, "README.md")
SOURCES = ("benchmarks/results/", "experiments/")

NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?"
UNITS = (
    r"ms|s|seconds?|minutes?|h|hours?|days?|GiB|MiB|GB|MB|kB|bytes|GB/s|MB/s|times|%"
    r"|images/s|images a second"
)
WORDS = r"(?:half an?|one|two|three|four|five|six|seven|eight|nine|ten|tenths of an?)"
MEASURED = re.compile(
    rf"(?<![\w.,-])(?:{NUMBER}(?:x\b|[ -]?(?:{UNITS})(?![\w/]))|[+-]?\d+\.\d{{3,}}(?![\w.]))"
    rf"|\b{WORDS} (?:milliseconds?|seconds?|minutes?|hours?|days?|times)\b"
)
COMMENT = re.compile(r"<!-- figures (?P<file>\S+)\n(?P<lines>.*?)-->", re.DOTALL)

# Numbers that are not measured: (page, or * for all; the number; why).
STATED: list[tuple[str, str, str]] = [
    ("*", "95%", "the coverage of an interval"),
    ("docs/clusters.md", "30 s", "a limit: src/callbacks/checkpoints.py"),
    ("docs/differences.md", "three times", "a count of passes, not a ratio"),
    ("docs/operations.md", "two seconds", "a guarantee: tests/faults/test_signals.py"),
    ("docs/operations.md", "60 s", "a limit: src/cli/locks.py"),
    ("docs/operations.md", "64 MB", "Docker's default"),
    ("docs/troubleshooting.md", "64 MB", "Docker's default"),
    ("docs/tutorial_competition.md", "three days", "the winner's, on eight V100"),
    ("docs/tutorial_competition.md", "24 days", "eight times three"),
    ("docs/tutorial_competition.md", "1.04 GiB", "140 million float32 weights, and their momentum"),
    ("docs/weights.md", "16 MiB", "a limit: src/mmdet_bridge/checkpoints"),
]


@dataclass(frozen=True)
class Figure:
    """One line of a comment."""

    page: str
    said: str
    file: str
    source: str


def figures(page: str, text: str) -> Iterator[Figure]:
    """Yield the lines of a page's comments."""
    for comment in COMMENT.finditer(text):
        for line in comment["lines"].strip().splitlines():
            said, equals, source = line.partition(" = ")
            assert equals, f"{page}: {line!r} is not of the form FIGURE = PATH"
            yield Figure(page, said.strip(), comment["file"], source.strip())


def prose(text: str) -> str:
    """Return what a reader sees of a page, without code and comments."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^ {4,}\S.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "`", text)
    return re.sub(r"\s+", " ", text)


def standing_alone(figure: str) -> str:
    """Return a pattern that finds a figure, and not as a part of another."""
    return rf"(?<![\d.,-]){re.escape(figure)}(?![\d\w])"


def numbers(text: str) -> list[str]:
    """Return the numbers of a text, the 95% of an interval left out."""
    return [found.replace(",", "") for found in re.findall(NUMBER, text.replace("95%", ""))]


def values(figure: Figure, text: str) -> list[float]:
    """Look a figure up in the text of its file."""
    path, _, factor = re.match(r"(.+?)( [*/] ([\d.]+))?$", figure.source).groups()  # type: ignore[union-attr]
    scale = 1.0
    if factor:
        scale = float(factor) if f"* {factor}" in figure.source else 1 / float(factor)
    if figure.file.endswith(".md"):
        return [float(number) * scale for number in numbers(table_cell(text, path))]
    found = []
    for one in path.split(", "):
        node: Any = json.loads(text)
        for key in one.split("."):
            node = node[int(key) if isinstance(node, list) else key]
        found.append(float(node) * scale)
    return found


def table_cell(text: str, path: str) -> str:
    """Return a cell of a Markdown table: ``row | column``, a row by how its first cell begins."""
    row, column = (part.strip() for part in path.split("|"))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    head = next(cells for cells in lines if column in cells)
    body = next(cells for cells in lines if re.match(rf"{re.escape(row)}\b", cells[0]))
    return body[head.index(column)]


def agrees(said: str, value: float) -> bool:
    """Tell whether a number is the value, rounded to the decimals (or zeros) that are written."""
    step = 10.0 ** -len(said.partition(".")[2])
    if "." not in said and abs(value) >= 1000:  # 1,900 of 1,889
        step = 10.0 ** (len(said) - len(said.rstrip("0")))
    return abs(float(said) - value) <= step / 2 * (1 + 1e-9)


def problems(page: str, text: str, read: Any) -> list[str]:
    """Return what is wrong with the figures of a page; ``read`` returns the text of a file."""
    shown, wrong = prose(text), []
    sourced = list(figures(page, text))
    for figure in sourced:
        said = numbers(figure.said)
        if not figure.file.startswith(SOURCES):
            wrong.append(f"{page}: {figure.file} holds no results")
        elif not re.search(standing_alone(figure.said), shown):
            wrong.append(f"{page}: {figure.said!r} has a source and is not in the text")
        else:
            found = values(figure, read(figure.file))
            if len(said) != len(found) or not all(map(agrees, said, found)):
                wrong.append(f"{page}: {figure.said!r}, but {figure.file} has {found}")
    stated = {number for where, number, _ in STATED if where in ("*", page)}
    for known in sorted({figure.said for figure in sourced} | stated, key=len, reverse=True):
        shown = re.sub(standing_alone(known), "#", shown)
    return wrong + [
        f"{page}: {found[0]!r} names no file of results: "
        f"...{shown[max(0, found.start() - 50) : found.end() + 20]}"
        for found in MEASURED.finditer(shown)
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_measured_figure_is_that_of_its_file(page: str) -> None:
    text = (ROOT / page).read_text()
    assert problems(page, text, lambda file: (ROOT / file).read_text()) == []


@pytest.mark.parametrize(("page", "number", "why"), STATED)
def test_what_is_stated_is_still_said(page: str, number: str, why: str) -> None:
    pages = PAGES if page == "*" else [page]
    assert any(number in prose((ROOT / one).read_text()) for one in pages), why


RESULTS = {
    "benchmarks/results/a.json": '{"load": {"ours_ms": 41.4, "times_faster": 5.56, "s": 19000.0}}',
    "experiments/README.md": "| rung | gain |\n|---|---|\n| S9 x | +0.1395 (+0.11 to +0.16) |",
}


@pytest.mark.parametrize(
    ("text", "sources", "problem"),
    [
        ("takes 41 ms, 5.6x", "41 ms = load.ours_ms\n5.6x = load.times_faster", None),
        ("takes 5.3 h", "5.3 h = load.s / 3600", None),
        ("takes 41.0 ms", "41.0 ms = load.ours_ms", "'41.0 ms', but .* has \\[41.4\\]"),
        ("takes 41 ms and 42 ms", "41 ms = load.ours_ms", "'42 ms' names no file"),
        ("takes 40 ms", "41 ms = load.ours_ms", "'41 ms' has a source and is not in the text"),
        ("scores 0.442", "", "'0.442' names no file"),
        ("`takes 40 ms` with a 95% interval\n\n    41 ms\n", "", None),
    ],
)
def test_the_comparison_finds_what_differs(text: str, sources: str, problem: str | None) -> None:
    page = f"{text}\n\n<!-- figures benchmarks/results/a.json\n{sources}\n-->\n"
    found = problems("page", page if sources else text, RESULTS.__getitem__)
    assert found == [] if problem is None else re.search(problem, found[0])


def test_a_figure_with_its_interval_is_that_of_a_table() -> None:
    page = "gains +0.14 (95% 0.11 to 0.16)\n<!-- figures experiments/README.md\n{}\n-->"
    good = page.format("+0.14 (95% 0.11 to 0.16) = S9 | gain")
    assert problems("page", good, RESULTS.__getitem__) == []
    assert problems("page", good.replace("0.16)", "0.17)"), RESULTS.__getitem__) != []
