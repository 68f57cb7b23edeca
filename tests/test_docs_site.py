"""The documentation site: it builds strictly and offline, and quotes messages that exist."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
HOLE = "\0"  # stands for a value in a template


def templates() -> set[str]:
    """Return every text of the sources, values left open, implicit joins made."""

    def text(node: ast.AST) -> str | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            return "".join(text(value) or HOLE for value in node.values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return (text(node.left) or HOLE) + (text(node.right) or HOLE)
        return None

    trees = (ast.parse(path.read_text()) for path in (ROOT / "src").rglob("*.py"))
    return {found for tree in trees for node in ast.walk(tree) if (found := text(node))}


def quoted_messages() -> list[str]:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    return re.findall(r"^\*\*(?:\d+, )?`([^`]+)`", page, re.MULTILINE)


def is_of(message: str, template: str) -> bool:
    """Return whether the words of a message on the page, ``...`` left open, are of a template."""
    words = message.strip(". ").split("...")
    if re.search(".*".join(map(re.escape, words)), template, re.DOTALL):
        return True
    parts = template.split(HOLE)
    if sum(len(part.split()) for part in parts) < 6 or len(parts) == 1:
        return False  # too general to say anything
    return bool(re.match(".*".join(map(re.escape, parts)), message, re.DOTALL))


def test_the_messages_of_the_page_are_those_of_the_program() -> None:
    messages, known = quoted_messages(), templates()
    assert len(messages) > 20
    unknown = [one for one in messages if not any(is_of(one, template) for template in known)]
    assert unknown == []
    assert not any(is_of("name must be a new one, got something", one) for one in known)


def test_every_guide_is_in_the_navigation() -> None:
    text = re.sub(r"!!python\S*", "", (ROOT / "mkdocs.yml").read_text())
    listed = re.findall(r"\S+\.md", yaml.dump(yaml.safe_load(text)["nav"]))
    assert len(listed) == len(set(listed))
    outside = {"index.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}
    guides = {path.name for path in (ROOT / "docs").glob("*.md")}
    experiments = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("experiments/**/*.md")}
    assert set(listed) == outside | guides | experiments


@pytest.mark.slow
def test_it_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text()
        assert re.findall(r'(?:src|<link[^>]* href)="https?://[^"]*"', text) == [], page
    reference = (tmp_path / "reference" / "rle.html").read_text()
    assert "parse_rle" in reference
    assert "EncodedPixels" in reference
