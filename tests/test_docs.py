"""What the pages point at is there: files, links, headings, modules."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from src.cli.entry_point import CONFIG_DIRECTORY
from tests.helpers.configs import FILES, compose_config

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
    folders = ("src", "docs", "experiments", "benchmarks")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    paths += [CONFIG_DIRECTORY / path for path in FILES]
    texts = [path for path in paths if path.suffix in {".py", ".md", ".yaml"}]
    found = {
        str(path.relative_to(ROOT)): match[0]
        for path in [*texts, *(ROOT / page for page in PAGES)]
        if (match := UNKNOWN.search(path.read_text()))
    }
    assert found == {}


def documented_commands() -> list[tuple[str, tuple[str, ...]]]:
    """Return each way in which the pages call a command, its overrides with one value each."""
    found: set[tuple[str, tuple[str, ...]]] = set()
    keys: set[tuple[str, tuple[str, ...]]] = set()
    for page in [*PAGES, "Makefile"]:
        if page == "docs/extending.md":  # of options that the page itself adds
            continue
        text = re.sub(r"\\\n\s*", " ", (ROOT / page).read_text())
        for line in re.findall(r"(?:python|\$\(PY\)) -m src\.(\w+ [^\n`#|]*)", text):
            name, *words = shlex.split(line.partition("   (")[0])
            overrides = [word for word in words if "=" in word and not word.startswith("hydra")]
            shown = tuple(override(word) for word in overrides)
            groups = tuple(word for word in shown if (CONFIG_DIRECTORY / key_of(word)).is_dir())
            one = (name, tuple(sorted({*map(key_of, shown), *groups})))
            if one not in keys:
                keys.add(one)
                found.add((name, shown))
    return sorted(found)


def key_of(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def override(word: str) -> str:
    """Return an override with a value that stands for those of a sweep or of the reader's own."""
    key, _, value = word.partition("=")
    if key == "sweep":  # of src.report, which renames it
        return f"sweep_dir={value}"
    if key == "ground_truth":  # of src.lab, as well
        return f"annotations={value}"
    if key != "+experiment" and value in ("mine", "found", "own"):  # settings that a search wrote
        return f"{key}=winner"
    if "..." in value or "$" in value or " to " in value:
        return f"{key}=x"
    return word if value.startswith(("[", "{")) else f"{key}={value.split(',')[0]}"


@cache
def composed(name: str, choices: tuple[str, ...]) -> DictConfig:
    return compose_config(name, list(choices))


@pytest.mark.parametrize(("name", "overrides"), documented_commands(), ids=str)
def test_commands_of_the_pages_compose(name: str, overrides: tuple[str, ...]) -> None:
    """What chooses or adds is composed; of the others, the key must be there."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    chosen = {
        str(one.input_line)
        for one in parsed
        if one.is_add() or (CONFIG_DIRECTORY / one.key_or_group).is_dir()
    }
    config = composed(name, tuple(sorted(chosen)))
    for one in parsed:
        if one.input_line not in chosen:
            parent, _, key = one.key_or_group.rpartition(".")
            there = OmegaConf.select(config, parent) if parent else config
            assert key in there.keys(), one.input_line  # noqa: SIM118  # one without a value, too
