"""Images that changed under the annotation cache, and runs that resume on other data, are named."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.annotations import image_files
from src.annotations.formats import ReadingOptions
from src.annotations.image_files import IMAGE_FILES
from src.annotations.store_builder import open_or_build
from src.errors import InputError
from tests.helpers.annotation_files import HEADER_2019, objects_of, write_lines
from tests.helpers.runs import generate_data, load, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of 30 x 40 pixels with an object each."""
    (tmp_path / "images").mkdir()
    for name in "abc":
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / f"{name}.png")
    rows = [f"{name}.png,1 200,30,40,{number}" for number, name in enumerate("abc")]
    write_lines(tmp_path / "rows.csv", HEADER_2019, *rows)
    return tmp_path


def open_cached(folder: Path, built: list[Any], **options: Any) -> Any:
    return open_or_build(
        folder / "rows.csv",
        folder / "cache",
        ReadingOptions(images_directory=folder / "images", **options),
        on_built=built.append,
    )


@pytest.mark.parametrize("replaced", [False, True])
def test_an_image_that_changed_size_under_the_cache_is_named(folder: Path, replaced: bool) -> None:
    built: list[Any] = []
    open_cached(folder, built)
    Image.new("RGB", (20, 15)).save(folder / "new.png")
    if replaced:  # which changes the folder, too
        (folder / "new.png").replace(folder / "images" / "b.png")
    else:
        (folder / "images" / "b.png").write_bytes((folder / "new.png").read_bytes())
    with pytest.raises(
        InputError,
        match=r"images: b\.png must have the size that it had when its annotations were read, "
        r"30 x 40 px \(height x width, EXIF orientation 1\), got 15 x 20 px \(1\); 1 of 3 images "
        r"have another size\. .* "
        r"delete .*/cache/rows-\w+\.store$",
    ):
        open_cached(folder, built)
    assert len(built) == 1
    shutil.rmtree(next((folder / "cache").glob("*.store")))
    open_cached(folder, built)
    assert built[1].size_findings[0].image_id == "b.png"


def test_headers_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    first = open_cached(folder, built)
    read: list[str] = []
    read_header = image_files.read_header
    monkeypatch.setattr(
        image_files, "read_header", lambda path: read.append(path.name) or read_header(path)
    )
    (folder / "images" / "other.png").touch()  # the folder changes, none of its images does
    open_cached(folder, built)
    assert (read, len(built)) == ([], 1)
    os.utime(folder / "images" / "a.png", ns=(1, 1))
    Image.new("RGB", (40, 30), "red").save(folder / "images" / "c.png")
    assert objects_of(open_cached(folder, built)) == objects_of(first)
    assert (sorted(read), len(built)) == (["a.png", "c.png"], 1)
    open_cached(folder, built)
    assert len(read) == 2
    assert first.image_files()["c.png"].size_hw == (30, 40)


def test_a_damaged_record_of_the_images_is_made_anew(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built: list[Any] = []
    store = open_cached(folder, built)
    path = store.directory / IMAGE_FILES
    path.write_text(path.read_text().replace("40", "41", 1))
    with caplog.at_level(logging.WARNING):
        open_cached(folder, built)
    assert len(built) == 2
    assert "image_files.json: damaged (its checksum does not match)" in caplog.text


def test_an_image_that_was_missing_is_read_when_it_is_there(folder: Path) -> None:
    built: list[Any] = []
    (folder / "images" / "b.png").rename(folder / "b.png")
    assert open_cached(folder, built, on_bad_rows="skip").num_instances == 2
    (folder / "b.png").rename(folder / "images" / "b.png")
    assert open_cached(folder, built, on_bad_rows="skip").num_instances == 3


def test_an_image_that_is_turned_under_the_cache_is_named(folder: Path) -> None:
    built: list[Any] = []
    open_cached(folder, built)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (40, 30)).save(folder / "images" / "a.png", exif=exif)
    with pytest.raises(InputError, match=r"a\.png .* got 30 x 40 px \(3\); 1 of 3 images have"):
        open_cached(folder, built)


def test_an_image_in_a_sub_folder_that_was_missing_is_looked_at(folder: Path) -> None:
    built: list[Any] = []
    (folder / "images" / "b.png").rename(folder / "b.png")
    open_cached(folder, built, missing_images="keep")
    before = (folder / "images").stat().st_mtime_ns
    (folder / "b.png").rename(folder / "images" / "b.png")
    os.utime(folder / "images", ns=(before, before))  # as if it were in a folder below
    open_cached(folder, built, missing_images="keep")
    open_cached(folder, built, missing_images="keep")
    assert len(built) == 2


def test_digests_say_what_is_annotated_and_not_where_it_stands(tmp_path: Path) -> None:
    rows = ["b.jpg,1 2 10 3,5,4,6_13_2", "a.jpg,3 4,3,3,31", "b.jpg,20 1,5,4,0", "c.jpg,,9,8,"]
    stores = {}
    for name, lines in {
        "same": rows,
        "moved": [rows[3], rows[0], rows[1], rows[2]],
        "mask": ["b.jpg,1 2 10 4,5,4,6_13_2", *rows[1:]],
        "category": ["b.jpg,1 2 10 3,5,4,7_13_2", *rows[1:]],
        "attribute": ["b.jpg,1 2 10 3,5,4,6_13", *rows[1:]],
        "fewer": rows[:2],
    }.items():
        source = write_lines(tmp_path / f"{name}.csv", HEADER_2019, *lines)
        store = open_or_build(source, tmp_path / "cache")
        stores[name] = dict(zip("abc", store.digests.tolist(), strict=False))
    same = stores.pop("same")
    assert stores.pop("moved") == same
    for name, digests in stores.items():
        assert digests["a"] == same["a"], name
        assert digests["b"] != same["b"], name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of twelve images, and a run of one epoch on it."""
    data = tmp_path_factory.mktemp("trained") / "data"
    generate_data(data, num_images=12)
    output = data.parent / "run"
    run(data, output, "trainer.max_epochs=1")
    return data, output


def other_data(trained: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the data and of the run, to change."""
    for name, source in zip(("data", "run"), trained, strict=True):
        shutil.copytree(source, tmp_path / name)
    shutil.rmtree(tmp_path / "data" / ".cache")
    return tmp_path / "data", tmp_path / "run"


def test_a_run_resumes_on_a_copy_of_its_data(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, output = other_data(trained, tmp_path)
    run(data, output, "trainer.max_epochs=2")
    assert load(output / "checkpoints" / "last.ckpt")["position"]["epoch"] == 2


@pytest.mark.parametrize("part", ["training", "validation"])
def test_resuming_on_other_annotations_is_refused(
    trained: tuple[Path, Path], tmp_path: Path, part: str
) -> None:
    data, output = other_data(trained, tmp_path)
    chosen = load(output / "checkpoints" / "last.ckpt")["data_fingerprint"][part]
    header, *rows = (data / "train.csv").read_text().splitlines()
    names = image_ids(data, part)
    changed = [
        row if row.split(",")[0] != names[1] else ",".join([names[1], "1 50", *row.split(",")[2:]])
        for row in rows
    ]
    (data / "train.csv").write_text("\n".join([header, *changed]) + "\n")
    with pytest.raises(
        InputError,
        match=rf"^the annotations of the {part} images must be those of the checkpoint, got others "
        rf"for 1 of {len(chosen['annotations'])} images, the first is {names[1]}: give those, or",
    ):
        run(data, output, "trainer.max_epochs=2")


@pytest.mark.slow
def test_resuming_on_other_pixels_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, output = other_data(trained, tmp_path)
    name = image_ids(data, "training")[2]
    Image.new("RGB", (96, 96), "red").save(data / "train" / name)
    with pytest.raises(
        InputError,
        match=rf"^the files of the training images must be those of the checkpoint, got others for "
        rf"1 of 9 images, the first is {name} \(then \d+ bytes, \d+ x \d+ px, now \d+ bytes, 96 x",
    ):
        run(data, output, "trainer.max_epochs=2")


def image_ids(data: Path, part: str) -> list[str]:
    """Of a part of the split, ascending."""
    key = {"training": "train", "validation": "validation"}[part]
    return sorted(json.loads((data / "split.json").read_text())[key])
