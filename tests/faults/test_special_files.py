"""Pipes and devices in place of files, and single values that are too large."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from src.annotations.categories import read_label_descriptions
from src.annotations.coco_results import read_image_numbers
from src.annotations.conversion import convert
from src.annotations.formats import detect_format
from src.annotations.image_files import read_image_rgb, read_size_hw
from src.annotations.json_stream import iterate_members
from src.annotations.rows import LONGEST_LINE_BYTES, iterate_lines
from src.annotations.store import open_table
from src.cli.entry_point import entry_point
from src.datamodules.split import read_split
from src.errors import InputError
from src.io import atomic_path, refuse_special_file, write_json
from src.metrics.scoring import is_score_file
from src.mmdet_bridge.checkpoints.category_map import read_category_map
from src.predictions.files import open_shard
from src.rle import rle_problems


def read_map(path: Path) -> object:
    return read_category_map(
        path, category_ids=[1], category_names={1: "a"}, source_classes=1, source_names=["a"]
    )


READERS: list[Callable[[Path], object]] = [
    read_size_hw,
    read_image_rgb,
    detect_format,
    read_label_descriptions,
    read_split,
    read_image_numbers,
    read_map,
    open_table,
    lambda path: open_shard(path, None),
    lambda path: is_score_file(path.with_suffix(".json")),
    lambda path: list(iterate_lines(path)),
    lambda path: list(iterate_members(path, streamed="annotations")),
]


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_is_refused_and_not_waited_for(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    for name in ("pipe", "pipe.json"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=r"pipe\S*: must be a regular file, got a pipe"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize("read", READERS[:-3])
def test_a_device_is_refused_through_a_link_too(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="zero: must be a regular file, got a device"):
        read(tmp_path / "zero")


def test_what_is_no_special_file_is_left_to_the_caller(tmp_path: Path) -> None:
    refuse_special_file(tmp_path)
    refuse_special_file(tmp_path / "missing")
    refuse_special_file("a\0b")
    (tmp_path / "file").touch()
    refuse_special_file(tmp_path / "file")


def test_a_device_as_output_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "ImageId,EncodedPixels,Height,Width,ClassId\na.jpg,1 2,4,4,1\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match="/dev/full: must be a regular file to write, got a devic"):
        write_json("/dev/full", {})
    with pytest.raises(InputError, match=r"/dev/full: must be a regular file to write"):
        convert(tmp_path / "a.csv", "/dev/full", output_format="imaterialist_2019")
    os.mkfifo(pipe := tmp_path / "pipe.json")
    with (
        pytest.raises(InputError, match=r"pipe\.json: must be a regular file to write, got a pipe"),
        atomic_path(pipe),
    ):
        raise AssertionError("nothing is written")
    assert pipe.is_fifo()
    assert Path("/dev/full").is_char_device()


def test_a_command_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["convert", "annotations=/dev/zero", "output=a.json"])
    with pytest.raises(SystemExit) as ended:
        entry_point("convert")(lambda config: convert(config.annotations, config.output))()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: /dev/zero: must be a regular file, got a device\n"


def test_one_line_of_a_csv_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    header = b"ImageId,EncodedPixels,Height,Width,ClassId\n"
    path.write_bytes(header + b"a.jpg," + b"1 1 " * (LONGEST_LINE_BYTES // 2))
    tracemalloc.start()
    with pytest.raises(
        InputError, match=rf"at most {LONGEST_LINE_BYTES} bytes, .*long\.csv, row 2"
    ):
        list(iterate_lines(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * LONGEST_LINE_BYTES


def test_one_annotation_of_a_json_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    path.write_text(json.dumps({"annotations": [{"counts": "0" * (2 * LONGEST_LINE_BYTES)}]}))
    with pytest.raises(
        InputError, match=rf"line 1, column 18: a value is longer than {1 << 23} cha"
    ):
        list(iterate_members(path, streamed="annotations"))


@pytest.mark.parametrize("tail", ["x", "3", "0 1"])
def test_run_lengths_that_are_wrong_take_a_small_multiple_of_their_text(tail: str) -> None:
    text = "".join(f"{2 * number + 1} 1 " for number in range(50_000)) + tail
    tracemalloc.start()
    _, problem = next(rle_problems(text, (1 << 10, 1 << 10)))
    assert re.search(r"value 100001 must|must be even, .* got 100001|run 50001 \(start 0", problem)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(text)
