"""The layout of the competition, the habits of its files, interruption, refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from src.annotations.categories import IMATERIALIST_2019_LABELS, read_label_descriptions
from src.errors import InputError
from src.synthetic import synthesize
from tests.helpers.synthetic_data import SETTINGS, TEST_IMAGES, TRAIN_IMAGES, by_image, read_rows

SMALL = {"seed": 1, "image_size": (96, 128)}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def displayed_hw(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        width, height = ImageOps.exif_transpose(image).size
    return height, width


def test_layout_is_the_competitions(images: Path) -> None:
    assert {path.name for path in images.iterdir()} == {
        "train", "test", "train.csv", "test_truth.csv", "sample_submission.csv",
        "label_descriptions.json", "synthesis.json",
    }  # fmt: skip
    for split, table, count in (
        ("train", "train.csv", TRAIN_IMAGES),
        ("test", "test_truth.csv", TEST_IMAGES),
    ):
        names = {path.name for path in (images / split).iterdir()}
        assert len(names) == count
        assert all(re.fullmatch(r"[0-9a-f]{32}\.jpg", name) for name in names)
        rows = read_rows(images / table)
        assert {row.image_id for row in rows} == names
        assert [row.image_id for row in rows] == sorted(row.image_id for row in rows)
    assert read_label_descriptions(images / "label_descriptions.json") == IMATERIALIST_2019_LABELS


def test_only_the_given_categories_are_worn_and_annotated(tmp_path: Path) -> None:
    categories = [1, 6, 10, 23, 31]  # no jacket, no bag, no neckline
    synthesize(tmp_path / "few", 24, 0, **SMALL, categories=categories)
    rows = read_rows(tmp_path / "few" / "train.csv")
    assert len({row.image_id for row in rows}) == 24
    assert {row.category for row in rows} == set(categories)
    synthesize(tmp_path / "all", 24, 0, **SMALL)
    synthesize(tmp_path / "listed", 24, 0, **SMALL, categories=list(range(46)))
    assert contents(tmp_path / "all") == contents(tmp_path / "listed")


def test_sample_submission_has_every_test_image_with_the_filler(images: Path) -> None:
    lines = (images / "sample_submission.csv").read_text().splitlines()
    names = sorted(path.name for path in (images / "test").iterdir())
    assert lines == ["ImageId,EncodedPixels,ClassId", *(f"{name},1 1,23" for name in names)]


def test_sizes_are_those_of_the_displayed_image_but_for_two(images: Path) -> None:
    transposed = set()
    for name, rows in by_image(read_rows(images / "train.csv")).items():
        size = displayed_hw(images / "train" / name)
        assert len({row.size_hw for row in rows}) == 1
        if rows[0].size_hw != size:
            assert rows[0].size_hw == size[::-1]
            transposed.add(name)
    assert len(transposed) == 2
    for name in transposed:
        with Image.open(images / "train" / name) as image:
            assert image.getexif()[0x0112] in (6, 8)
    for row in read_rows(images / "test_truth.csv"):
        assert row.size_hw == displayed_hw(images / "test" / row.image_id)


def test_some_images_are_grayscale_and_some_rotated(images: Path) -> None:
    modes, orientations = [], []
    for path in (images / "train").iterdir():
        with Image.open(path) as image:
            modes.append(image.mode)
            orientations.append(image.getexif().get(0x0112, 1))
            assert image.format == "JPEG"
    assert 1 <= modes.count("L") <= TRAIN_IMAGES // 2
    assert set(modes) == {"L", "RGB"}
    assert {6, 8} <= set(orientations)
    assert orientations.count(1) > TRAIN_IMAGES // 3


def test_no_transposed_rows_in_a_small_set(tmp_path: Path) -> None:
    synthesize(tmp_path / "few", 9, 0, **SMALL)
    for row in read_rows(tmp_path / "few" / "train.csv"):
        assert row.size_hw == displayed_hw(tmp_path / "few" / "train" / row.image_id)


def test_same_seed_same_bytes_and_other_seed_others(tmp_path: Path) -> None:
    synthesize(tmp_path / "a", 3, 2, **SMALL)
    synthesize(tmp_path / "b", 3, 2, **SMALL)
    synthesize(tmp_path / "c", 3, 2, **{**SMALL, "seed": 2})
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not set(contents(tmp_path / "a")) & {
        name for name in contents(tmp_path / "c") if name.endswith(".jpg")
    }


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path: Path, images: Path) -> None:
    synthesize(tmp_path / "few", 3, 1, **SETTINGS)
    few, many = contents(tmp_path / "few"), contents(images)
    names = [name for name in few if name.endswith(".jpg")]
    assert len(names) == 4
    for name in names:
        assert few[name] == many[name]
    rows = {row.image_id: row.numbers for row in read_rows(images / "train.csv")}
    for row in read_rows(tmp_path / "few" / "train.csv"):
        assert row.image_id in rows


def test_processes_change_nothing(tmp_path: Path) -> None:
    synthesize(tmp_path / "one", 33, 1, **SMALL)
    synthesize(tmp_path / "two", 33, 1, workers=2, **SMALL)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_goes_on_after_an_interruption(tmp_path: Path) -> None:
    synthesize(tmp_path / "whole", 34, 2, **SMALL)

    def interrupt(done: int, total: int) -> None:
        if done >= 16:
            raise KeyboardInterrupt("at 16")

    with pytest.raises(KeyboardInterrupt, match="at 16"):
        synthesize(tmp_path / "cut", 34, 2, on_progress=interrupt, **SMALL)
    assert not (tmp_path / "cut" / "train.csv").exists()
    assert synthesize(tmp_path / "cut", 34, 2, **SMALL) == 36 - 16
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_done_is_done_and_what_is_lost_is_drawn_again(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    synthesize(folder, 18, 1, **SMALL)
    before = contents(folder)
    assert synthesize(folder, 18, 1, **SMALL) == 0
    next((folder / "train").iterdir()).unlink()
    (folder / "sample_submission.csv").unlink()
    assert 1 <= synthesize(folder, 18, 1, **SMALL) <= 16
    assert contents(folder) == before


def test_a_lost_table_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    synthesize(folder, 3, 1, **SMALL)
    before = contents(folder)
    (folder / "train.csv").unlink()
    assert synthesize(folder, 3, 1, **SMALL) == 3
    assert contents(folder) == before


def test_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="folder is not empty and was not made by this program"):
        synthesize(tmp_path, 2, 1, **SMALL)
    with pytest.raises(InputError, match=r"notes\.txt: it is a file; a folder is needed"):
        synthesize(tmp_path / "notes.txt", 2, 1, **SMALL)


def test_refuses_a_folder_of_another_request(tmp_path: Path) -> None:
    synthesize(tmp_path / "images", 2, 1, **SMALL)
    with pytest.raises(InputError, match=r"num_train_images was 2, now 3; seed was 1, now 2"):
        synthesize(tmp_path / "images", 3, 1, seed=2, image_size=(96, 128))
    (tmp_path / "images" / "synthesis.json").write_text("{")
    with pytest.raises(InputError, match=r"synthesis\.json: damaged or no JSON .*new folder"):
        synthesize(tmp_path / "images", 2, 1, **SMALL)
    (tmp_path / "images" / "synthesis.json").write_text("[]")
    with pytest.raises(InputError, match=r"must hold a JSON object, got list; give a new folder"):
        synthesize(tmp_path / "images", 2, 1, **SMALL)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_train_images": 0}, "num_train_images must be a whole number from 1 to"),
        ({"num_test_images": -1}, "num_test_images must be a whole number from 0 to"),
        ({"num_train_images": 2.5}, "num_train_images must be a whole number"),
        ({"seed": -1}, "seed must be a whole number from 0 to"),
        ({"image_size": (8, 8)}, "image_size.0 must be a whole number from 64 to 12000"),
        (
            {"image_size": (300, 200)},
            r"image_size must have the smaller edge first, got \[300,200\]",
        ),
        ({"difficulty": 1.5}, "difficulty must be a number from 0 to 1"),
        ({"clutter": "much"}, "clutter must be a number from 0 to 1"),
        ({"attributes_share": -0.1}, "attributes_share must be a number from 0 to 1"),
        ({"num_transposed_images": -1}, "num_transposed_images must be a whole number"),
    ],
)
def test_bad_values_are_named(tmp_path: Path, values: dict, message: str) -> None:
    arguments = {"num_train_images": 2, "num_test_images": 1, **values}
    with pytest.raises(InputError, match=message):
        synthesize(tmp_path / "images", **arguments)
    assert not (tmp_path / "images").exists()


def test_the_request_is_kept_with_the_images(images: Path) -> None:
    request = json.loads((images / "synthesis.json").read_text())
    assert request["num_train_images"] == TRAIN_IMAGES
    assert request["seed"] == SETTINGS["seed"]
    assert request["image_size"] == list(SETTINGS["image_size"])
