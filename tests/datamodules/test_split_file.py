from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from src.datamodules.split import Split, check_split, read_split, write_split
from src.errors import InputError

SPLIT = Split(validation=("a", "c"), train=("b",), seed=777, annotations="train.csv")


def test_written_split_is_read_back(tmp_path):
    path = tmp_path / "split.json"
    write_split(SPLIT, path)
    assert read_split(path) == SPLIT
    assert json.loads(path.read_text()) == {
        "validation": ["a", "c"],
        "train": ["b"],
        "seed": 777,
        "annotations": "train.csv",
    }


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "split.json"
    write_split(SPLIT, path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("src.io.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_split(Split(validation=("x",), train=("y",), seed=1, annotations="z"), path)
    monkeypatch.undo()
    assert read_split(path) == SPLIT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged or no JSON"),
        ("[]", "must hold a JSON object, got list"),
        ('{"train": ["a"]}', "the key 'validation' must hold a list of image ids, got None"),
        ('{"validation": "a", "train": ["b"]}', "'validation' must hold a list .* got 'a'"),
        ('{"validation": [1], "train": ["b"]}', r"'validation' must hold a list .* got \[1\]"),
        (
            '{"validation": [], "train": ["b"]}',
            "'validation' must hold at least one image id, got none",
        ),
        ('{"validation": ["a"], "train": []}', "'train' must hold at least one image id, got none"),
        ('{"validation": ["a"], "train": ["b", "a"]}', "image id 'a' must be named once"),
        ('{"validation": ["a", "a"], "train": ["b"]}', "image id 'a' must be named once"),
        ('{"validation": ["a"], "train": ["b"]}', "'seed' must hold a whole number, got None"),
        (
            '{"validation": ["a"], "train": ["b"], "seed": 1}',
            "'annotations' must hold a file name, got None",
        ),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"split\.json: .*{message}"):
        read_split(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: no such split file"):
        read_split(tmp_path / "none.json")


def test_unknown_ids_are_named():
    with pytest.raises(
        InputError, match=r"split\.json: image id 'c' is not in new\.csv.*another train\.csv"
    ):
        check_split(
            SPLIT, image_ids=["a", "b"], split_file=Path("split.json"), annotations=Path("new.csv")
        )


def test_images_in_no_part_are_counted(caplog):
    with caplog.at_level(logging.WARNING):
        check_split(
            SPLIT, image_ids="abcde", split_file=Path("split.json"), annotations=Path("new.csv")
        )
    assert "puts 2 images of new.csv in no part" in caplog.text


def test_ids_are_matched_to_the_annotations_in_any_spelling(tmp_path):
    path = tmp_path / "split.json"
    content = {"validation": ["a", "x\\c "], "train": ["./b.jpg"], "seed": 1, "annotations": "t"}
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    annotated = {"image_ids": ["a.jpg", "b", "x/c.jpg"], "annotations": Path("t.csv")}
    split = check_split(read_split(path), split_file=path, **annotated)
    assert (split.validation, split.train) == (("a.jpg", "x/c.jpg"), ("b",))
    content["train"] = ["b.jpg", "a.jpg"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"split\.json: image id 'a\.jpg' must be named once"):
        check_split(read_split(path), split_file=path, **annotated)
