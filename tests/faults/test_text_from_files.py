"""Text out of files is shown as it is: no markup, no control sequence, no key of its own."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.table import Table
from rich.text import Text

from src.callbacks.loggers import _cell
from src.cli.entry_point import CONFIG_DIRECTORY, entry_point
from src.console import PlainConsole, escape_controls, escape_log_records, say
from src.errors import InputError
from src.postprocess.settings import PostprocessSettings
from src.tuning.search_results import is_found, write_option

HOSTILE = [
    "[red]x[/red]",
    "[/]",
    "[link=http://a]b[/link]",
    ":boom:",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "a\rb",
    "\u202eevil",
    "\x9b31m",
    "a\x00b",
    "\udce9",
]


def shown(*renderables: object) -> str:
    file = io.StringIO()
    PlainConsole(file=file, width=100, force_terminal=True).print(*renderables)
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_console_shows_text_as_it_is(text: str) -> None:
    for renderable in (text, Text(text), table_with(text), table_with(Text(text))):
        out = shown(renderable)
        visible = "".join(c for c in out if c.isprintable() or c == "\n")
        assert not set(out) & set("\r\x07\x00\x9b\u202e\udce9")
        assert "\x1b[31m" not in out
        assert "\x1b]" not in out
        if text.isprintable():
            assert text in visible


def table_with(cell: str | Text) -> Table:
    table = Table("class")
    table.add_row(cell)
    return table


def test_names_of_other_scripts_stay() -> None:
    text = "футболка 靴 \u3000\u00a0é"
    assert text.split()[0] in shown(text)
    assert escape_controls(text) == text


@pytest.mark.parametrize(
    ("encoding", "name"), [("ascii", r"plac\xe9 \u88d9"), ("latin-1", r"placé \u88d9")]
)
def test_names_of_categories_in_a_terminal_that_is_not_of_utf_8(
    encoding: str, name: str, tmp_path: Path
) -> None:
    """UnicodeEncodeError ended the command; a file that it writes is of UTF-8 all the same."""
    categories = [{"id": 1, "name": "placé \u88d9"}]
    image = {"id": 1, "file_name": "a.jpg", "height": 9, "width": 9}
    mask = {"size": [9, 9], "counts": [20, 9, 52]}
    truth = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": mask}
    content = {"images": [image], "annotations": [truth], "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(content))
    arguments = ("submission=a.json", "annotations=a.json", "cache_dir=null", "output=o.json")
    environment = {
        **os.environ,
        "PYTHONPATH": str(CONFIG_DIRECTORY.parent),
        "PYTHONIOENCODING": encoding,
        **{"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"},
    }
    done = subprocess.run(
        [sys.executable, "-m", "src.score", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"1 {name} " in done.stdout.decode(encoding)


def test_a_line_and_a_log_record_are_harmless(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    say("note: \x1b[2Jgone")
    assert capsys.readouterr().err == "note: \\x1b[2Jgone\n"
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        escape_log_records()
        escape_log_records()
        logging.getLogger("any").warning("left out: %s, %d%%", "\x1b[2J\r", 7)
    finally:
        logging.getLogger().removeHandler(handler)
    assert stream.getvalue() == "left out: \\x1b[2J\\r, 7%\n"


def test_an_error_is_one_line_whatever_is_in_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["score", "annotations=a", "submission=b", "hydra.output_subdir=null"]
    )

    @entry_point("score")
    def main(config: object) -> None:
        raise InputError("a.csv, row 1: ImageId 'a\nerror: \x1b[31mall is well'")

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err == "error: a.csv, row 1: ImageId 'a\\nerror: \\x1b[31mall is well'\n"


def test_a_name_is_no_markdown_in_a_loggers_table() -> None:
    assert _cell("a|b\n<b>[x](http://y)`c`") == (r"a\|b\\n&lt;b&gt;\[x\](http://y)\`c\`")
    assert [_cell(None), _cell(0.5), _cell(7)] == ["", "0.5000", "7"]


def test_a_line_end_in_a_path_makes_no_key(tmp_path: Path) -> None:
    path = tmp_path / "found.yaml"
    origin = ["searched in a\nscore_threshold: 0.99\n_target_: os.system\n# b"]
    settings = PostprocessSettings(
        score_threshold=0.25,
        nms_iou_threshold=0.5,
        max_per_image=10,
        remove_categories=(),
        mask_threshold=0.5,
        suppress_overlaps=False,
        min_area_px=0,
    )
    write_option(path, settings, origin)
    content = yaml.safe_load(path.read_text())
    assert "_target_" not in content
    assert content["score_threshold"] == 0.25
    assert path.read_text().splitlines()[1].startswith(r"# searched in a\nscore_threshold: 0.99\n")
    assert is_found(path)
