"""The pages' code blocks run, on small data, in a copy of the repository; see CONTRIBUTING.md."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.page_library import KNOWN, Library
from tests.helpers.page_runs import Run, patched
from tests.helpers.pages import PAGES, ROOT, PageError, parse_page, read_page
from tests.helpers.warm_python import LIGHT, warm_python

RUN = [page for page in PAGES if any(block.kind != "text" for block in read_page(page))]


def run_blocks(page: str, run: Run) -> None:
    try:
        for block in read_page(page):
            run.block(block)
    finally:
        print("\n".join(f"{seconds:6.1f} s of CPU  {what}" for seconds, what in run.cpu_seconds))
        total = sum(seconds for seconds, _ in run.cpu_seconds)
        print(f"{total:6.1f} s of CPU  {page}; the library {run.library.cpu_seconds:.1f} s")


@pytest.mark.timeout(1200)
def test_blocks_of_the_readme_run_without_a_model(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with warm_python(LIGHT) as python:
        library = Library(tmp_path_factory.mktemp("library"), python)
        run_blocks("README.md", Run(tmp_path, library, with_models=False))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    with warm_python() as python:
        yield Library(tmp_path_factory.mktemp("library"), python)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("page", RUN)
def test_blocks_run(page: str, library: Library, tmp_path: Path) -> None:
    run_blocks(page, Run(tmp_path, library))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_in_a_block(page: str) -> None:
    inside = {
        number
        for block in read_page(page)
        for number in range(block.line, block.line + block.text.count("\n") + 1)
    }
    lines = (ROOT / page).read_text().split("\n")
    commands = {
        at for at, line in enumerate(lines, 1) if re.match(r"\s+python -m \w|python -m", line)
    }
    assert commands - inside == set()


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_whole_and_few_are_not_run(page: str) -> None:
    for block in read_page(page):
        if block.kind == "commands" and block.not_run != "SLURM":
            for _, command in block.commands():
                assert "..." not in shlex.split(command, comments=True), block.place


@pytest.mark.parametrize("page", PAGES)
def test_what_stands_for_the_readers_files_is_made_for_the_test(page: str) -> None:
    """The test of a page's blocks is slow: a name that it cannot know is found here."""
    made = {name for name in KNOWN if name.isupper()}
    for block in read_page(page):
        if block.kind != "commands" or block.not_run is not None:
            continue
        for _, command in block.commands():
            given = [word.partition("=")[::2] for word in shlex.split(command, comments=True)]
            named = {(key, value) for key, value in given if re.fullmatch("[A-Z][A-Z_]+", value)}
            made |= {value for key, value in named if key in ("output", "predictions")}
            assert {value for _, value in named} <= made, f"{block.place}: {command}"


PAGE = """# A page

Text, and a list:

- one

    of two paragraphs

It ends.

    python -m src.score submission=a.csv \\
        annotations=A.json   # why

    make help

<!-- not run: GPU -->

    torchrun -m src.train

<!-- file: conf/experiment/mine.yaml -->

    # @package _global_
    name: mine

then

```python
from src import score
```

1. In a list

    ```bash
    python -m src.lab
    ```

and

    train.json   a file
    error: it is no command
"""


def test_a_patch_fits_once() -> None:
    text = "<!-- patch: a.py -->\n\n    --- a\n    +++ b\n    @@\n     one\n    +two\n"
    (block,) = parse_page(text, "page.md")
    assert (block.kind, block.file) == ("patch", "a.py")
    assert patched("zero\none\n", block) == "zero\none\ntwo\n"
    with pytest.raises(AssertionError, match=r"page\.md, line 3: not once in a\.py"):
        patched("one\none\n", block)


def test_blocks_of_a_page() -> None:
    blocks = parse_page(PAGE, "page.md")
    assert [(b.line, b.kind, b.not_run, b.file) for b in blocks] == [
        (11, "commands", None, None),
        (18, "commands", "GPU", None),
        (22, "file", None, "conf/experiment/mine.yaml"),
        (28, "python", None, None),
        (34, "commands", None, None),
        (39, "text", None, None),
    ]
    score = "python -m src.score submission=a.csv annotations=A.json   # why"
    assert blocks[0].commands() == [(11, score), (14, "make help")]
    assert blocks[2].text == "# @package _global_\nname: mine"
    assert blocks[4].text == "python -m src.lab"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- not run: slow -->\n\n    make demo\n", "must name one of GPU, Kaggle, SLURM"),
        ("<!-- not run: GPU -->\n\n    error: no command\n", "before no commands and no Python"),
        ("<!-- not run: GPU -->\n\nText.\n\n    make demo\n", "1 marks before no block"),
    ],
)
def test_marks_that_are_not_legal(text: str, message: str) -> None:
    with pytest.raises(PageError, match=message):
        parse_page(text, "page.md")
