from __future__ import annotations

import csv
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from src.cli.entry_point import CONFIG_DIRECTORY
from src.datamodules.split import Split, read_split
from src.errors import InputError
from src.split import split_annotations
from tests.helpers.category_sets import draw_images

ROOT = Path(__file__).resolve().parents[2]


def split(*overrides: str) -> Split:
    with initialize_config_dir(config_dir=str(CONFIG_DIRECTORY), version_base="1.3"):
        return split_annotations(compose("split", overrides=list(overrides)))


def write_csv(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["ImageId", "EncodedPixels", "Height", "Width", "ClassId"], *rows]
        )


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    ids, sets = draw_images(300, 12, seed=8)
    return [
        [image_id, f"{1 + 9 * category} 4", "20", "20", str(category)]
        for image_id, categories in zip(ids, sets, strict=True)
        for category in sorted(categories)
    ]


def test_same_split_whatever_the_order_of_rows(rows, tmp_path, capsys):
    splits = []
    for name, seed in (("train.csv", None), ("shuffled.csv", 1)):
        shuffled = list(rows)
        if seed is not None:
            random.Random(seed).shuffle(shuffled)
        write_csv(tmp_path / name, shuffled)
        made = split(
            f"annotations={tmp_path / name}",
            f"output={tmp_path / 'split.json'}",
            "num_validation_images=31",
        )
        assert read_split(tmp_path / "split.json") == made
        assert made.annotations == name
        splits.append((made.validation, made.train))
    shown = capsys.readouterr().out
    assert "31 validation and" in shown
    assert "total deviation" in shown
    assert "6 pants" in shown
    assert splits[0] == splits[1]
    assert len(splits[0][0]) == 31
    assert (tmp_path / ".cache").is_dir()
    assert {*splits[0][0], *splits[0][1]} == {row[0] for row in rows}


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        (
            "train.csv",
            0,
            "num_validation_images must be .* the annotations hold 2[0-9]+ images .* got 0",
        ),
        ("train.csv", 1000, "num_validation_images must be from 1 to 2[0-9]+, .* got 1000"),
        ("empty.csv", 5, r"empty\.csv"),
        ("none.csv", 5, r"none\.csv"),
    ],
)
def test_bad_input_is_named_and_writes_nothing(rows, tmp_path, name, wanted, message):
    write_csv(tmp_path / "train.csv", rows)
    write_csv(tmp_path / "empty.csv", [])
    with pytest.raises(InputError, match=message):
        split(
            f"annotations={tmp_path / name}",
            f"output={tmp_path / 'split.json'}",
            f"cache_dir={tmp_path / 'cache'}",
            f"num_validation_images={wanted}",
        )
    assert not (tmp_path / "split.json").exists()


def test_program_ends_with_one_line(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "src.split", f"annotations={tmp_path / 'none.csv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
