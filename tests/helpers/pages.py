"""The code blocks of a page: commands, Python, files to write, and text; the marks before them.

A block is indented by four spaces or fenced. An HTML comment directly before it is its mark:

    <!-- not run: GPU -->             commands or Python that a test cannot run; REASONS are legal
    <!-- file: conf/module/a.yaml --> the block is this file of the reader's copy
    <!-- patch: src/a.py -->          the block changes this file: a diff without line numbers
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/*.md")
    for path in sorted(ROOT.glob(pattern))
]
REASONS = ("GPU", "Kaggle", "SLURM", "PostgreSQL", "network", "another framework")
PROGRAMS = (  # a block that starts with one of these has commands
    *("python", "make", "source", "torchrun", "tensorboard", "wandb", "srun", "sbatch", "docker"),
    *("kaggle", "unzip", "mkdir", "cp", "mv", "ln", "cd", "git", "pip", "uv", "curl", "wget"),
    *("export", "pre-commit", "mkdocs", "tar", "ls", "cat", "psql", "createdb", "#!/bin/bash"),
)
SHELLS = ("bash", "console", "sh", "shell")
_MARK = re.compile(r"<!-- (not run|file|patch): (.*?) -->")
_FENCE = re.compile(r"( *)(```+)(\w*)")
_CONTAINER = re.compile(r"([-*+]|\d+\.) |!!! |\?\?\?\+? |=== ")  # what indents text that is no code
_ASSIGNMENT = re.compile(r"^([A-Z_]+=\S* +)+")


@dataclass(frozen=True)
class Block:
    """A code block of a page; ``kind`` is commands, python, file, patch or text."""

    page: str
    line: int
    text: str
    kind: str
    not_run: str | None = None
    file: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page}, line {self.line}"

    def commands(self) -> list[tuple[int, str]]:
        """Return each command on one line, with the number of its first line."""
        found: list[tuple[int, str]] = []
        begun: tuple[int, str] | None = None
        for number, line in enumerate(self.text.split("\n"), start=self.line):
            first, text = begun or (number, "")
            text += line.strip() if begun else line
            begun = (first, text[:-1].rstrip() + " ") if text.endswith("\\") else None
            if begun is None and text.strip() and not text.lstrip().startswith("#"):
                found.append((first, text.strip()))
        assert begun is None, f"{self.place}: the last line ends with a backslash"
        return found


class PageError(AssertionError):
    """A mark that is not legal, or that stands before no block."""


def read_page(page: str) -> list[Block]:
    """Return the blocks of a page below the repository, in their order."""
    return parse_page((ROOT / page).read_text(), page)


def parse_page(text: str, page: str) -> list[Block]:
    """Return the blocks of a page's text, in their order.

    Raises:
        PageError: A mark has a reason that is not legal, or no block that it could be for.
    """
    blocks, marks = [], 0
    for number, language, code, before in _pieces(text.split("\n")):
        mark = _MARK.fullmatch(before)
        marks += mark is not None
        kind, value = mark.groups() if mark else ("", None)
        is_of_file = kind in ("file", "patch")
        what = kind if is_of_file else _kind_of(code, language)
        block = Block(
            page,
            number,
            code,
            what,
            not_run=value if kind == "not run" else None,
            file=value if is_of_file else None,
        )
        if block.not_run is not None and block.not_run not in REASONS:
            raise PageError(f"{block.place}: {before} must name one of {', '.join(REASONS)}")
        if block.not_run is not None and what not in ("commands", "python"):
            raise PageError(f"{block.place}: {before} stands before no commands and no Python")
        blocks.append(block)
    lines = map(str.strip, text.split("\n"))
    if left := sum(_MARK.fullmatch(line) is not None for line in lines) - marks:
        raise PageError(f"{page}: {left} marks before no block")
    return blocks


def _pieces(lines: list[str]) -> Iterator[tuple[int, str, str, str]]:
    """Give line number, language, code and the line of text before, block by block."""
    before, indents, number = "", 0, 0
    while number < len(lines):
        line = lines[number]
        first = number
        if fence := _FENCE.match(line):
            _, ticks, language = fence.groups()
            number = next(
                at for at in range(first + 1, len(lines)) if lines[at].strip().startswith(ticks)
            )
            code = textwrap.dedent("\n".join(lines[first + 1 : number]))
            yield first + 2, language, code, before
            before, number = line, number + 1
            continue
        if _CONTAINER.match(line):
            indents = 4
        elif line and not line.startswith(" "):
            indents = 0
        deep = " " * (indents + 4)
        if line.startswith(deep) and (first == 0 or not lines[first - 1].strip()):
            while number < len(lines) and (lines[number].startswith(deep) or not lines[number]):
                number += 1
            code = textwrap.dedent("\n".join(lines[first:number])).strip("\n")
            yield first + 1, "", code, before
            before = ""
            continue
        before = line.strip() or before
        number += 1


def _kind_of(code: str, language: str) -> str:
    if language in SHELLS or language == "python":
        return "python" if language == "python" else "commands"
    lines = [line for line in code.split("\n") if line.strip()]
    told = [line for line in lines if not line.startswith("#") or line.startswith("#!")]
    first = _ASSIGNMENT.sub("", told[0]).split()[0] if told else ""
    if language:
        return "text"
    if first in PROGRAMS:
        return "commands"
    try:
        statements = ast.parse(code).body
    except SyntaxError:
        return "text"
    return "python" if all(not isinstance(one, ast.AnnAssign) for one in statements) else "text"
