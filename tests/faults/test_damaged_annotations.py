"""Damaged annotation caches are noticed and built anew; stores of others are checked like files."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from src.annotations.conversion import convert
from src.annotations.store import TABLES, AnnotationStore, describe_files
from src.annotations.store_builder import build_store, open_or_build
from src.errors import InputError
from src.io import read_json_object, seal, write_json
from src.metrics.scoring import open_ground_truth, open_submission
from tests.helpers.annotation_files import HEADER_2019, objects_of, write_lines

FILES = ("store.json", *TABLES)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Forty images with an object of several runs each."""
    rows = [
        f"{n:02d}.jpg,{' '.join(f'{start + n} 7' for start in range(1, 2000, 40))},60,50,{n % 46}"
        for n in range(40)
    ]
    return write_lines(tmp_path / "rows.csv", HEADER_2019, *rows)


def cached(cache: Path) -> Path:
    return next(path for path in cache.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed_or_harmless(source: Path, tmp_path: Path, name: str) -> None:
    build_store(source, tmp_path / "a.store")
    wanted = objects_of(AnnotationStore(tmp_path / "a.store"))
    path = tmp_path / "a.store" / name
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.choice(len(whole), size=min(len(whole), 120), replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            found = objects_of(AnnotationStore(tmp_path / "a.store"))
        except InputError as error:
            assert name in str(error) or "a.store: " in str(error)  # noqa: PT017
        else:
            assert name == "store.json"  # white space
            assert found == wanted


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "flipped": damage_flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "other": lambda path: path.write_bytes(b"{}"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_cache_is_built_anew(
    source: Path, tmp_path: Path, name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = objects_of(open_or_build(source, tmp_path / "cache"))
    DAMAGE[kind](cached(tmp_path / "cache") / name)
    built: list[Any] = []
    with caplog.at_level(logging.WARNING):
        store = open_or_build(source, tmp_path / "cache", on_built=built.append)
    assert objects_of(store) == wanted
    assert len(built) == 1
    assert "built again: " in caplog.text
    assert str(cached(tmp_path / "cache")) in caplog.text
    open_or_build(source, tmp_path / "cache", on_built=built.append)
    assert len(built) == 1


def rewrite(directory: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change columns of a store's table as somebody would who can compute checksums."""
    path = directory / name
    with pa.OSFile(str(path)) as file:
        batch = pa.ipc.open_file(file).get_batch(0)
    columns = {
        key: column.to_pylist()
        for key, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    change(columns)
    changed = pa.record_batch(
        [pa.array(columns[field.name], type=field.type) for field in batch.schema],
        schema=batch.schema,
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(changed)
    seal_again(directory)


def seal_again(directory: Path, **changes: Any) -> None:
    description = read_json_object(directory / "store.json")
    del description["sha256"]
    description |= {"files": describe_files(directory)} | changes
    write_json(directory / "store.json", seal(description))


def set_first(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    def change(columns: dict[str, Any]) -> None:
        columns[key][0] = value

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "images.arrow",
            set_first("file_name", "../secret.jpg"),
            r"file_name must be a path relative to the image folder and inside it, got "
            r"'\.\./secret\.jpg' \(.*images\.arrow, row 1\)",
        ),
        ("images.arrow", set_first("file_name", "/etc/passwd"), r"file_name must be a path rel"),
        ("images.arrow", set_first("image_id", "../00.jpg"), r"image_id must be a path relative"),
        ("images.arrow", set_first("image_id", "0\n.jpg"), r"image_id must be free of control"),
        ("images.arrow", set_first("image_id", "01.jpg"), r"image_id must ascend, .* row 2\)"),
        (
            "images.arrow",
            set_first("height_px", 0),
            r"height_px must be a whole number from 1 .*, got 0",
        ),
        (
            "images.arrow",
            set_first("height_px", 2**30),
            r"height_px times width_px must be at most .*, got 1073741824 x 50",
        ),
        ("images.arrow", set_first("height_px", 3), r"runs: run 5 .* must end by pixel"),
        ("images.arrow", set_first("instances", 2), r"image_index must agree with the counts"),
        ("images.arrow", set_first("width_px", None), r"damaged .*width_px has an empty value"),
        ("instances.arrow", set_first("category_id", 99), r"category_id must be 0 to 45, got 99"),
        ("instances.arrow", set_first("attribute_ids", [92]), r"attribute_ids must be 0 to 91"),
        ("instances.arrow", set_first("is_crowd", 7), r"is_crowd must be 0 or 1"),
        ("instances.arrow", set_first("runs_row", 1), r"runs_row must name each row of runs"),
        ("instances.arrow", set_first("area_px", 1), r"area_px must be that of the mask, 350, got"),
        ("instances.arrow", set_first("box_xyxy", [0, 0, 1, 1]), r"box_xyxy must be that of the"),
        (
            "runs.arrow",
            set_first("runs", [[5, 3], [6, 2]]),
            r"runs: run 2 .* must not overlap run 1",
        ),
        ("runs.arrow", set_first("runs", [[-1, 3]]), r"runs: run 1 .* must start at 1 or later"),
        ("runs.arrow", lambda columns: columns["runs"].pop(), r"must hold a row for each of the"),
    ],
)
def test_a_store_of_somebody_else_is_checked_as_files_are(
    source: Path, tmp_path: Path, name: str, change: Any, message: str
) -> None:
    directory = tmp_path / "a.store"
    build_store(source, directory)
    shutil.copytree(directory, tmp_path / "whole.store")
    rewrite(directory, name, change)
    with pytest.raises(InputError, match=message):
        open_or_build(directory, tmp_path / "cache")
    with pytest.raises(InputError, match=message):
        convert(directory, tmp_path / "out.json")
    with pytest.raises(InputError, match=message), open_ground_truth(directory):
        pass
    with (
        open_ground_truth(tmp_path / "whole.store") as ground_truth,
        pytest.raises(InputError, match=message),
        open_submission(directory, ground_truth),
    ):
        pass
    assert not (tmp_path / "out.json").exists()


def test_labels_and_columns_of_a_store_are_checked(source: Path, tmp_path: Path) -> None:
    directory = tmp_path / "a.store"
    build_store(source, directory)
    labels = {"categories": [{"id": "1", "name": "x"}]}
    seal_again(directory, labels=labels)
    with pytest.raises(
        InputError, match=r"categories\[0\]: id must be a whole number from 0 to 32767, got '1'"
    ):
        open_or_build(directory, tmp_path / "cache")
    for changes, message in (
        ({"source": ["a"]}, r"store\.json: key 'source' must hold a str, got list"),
        ({"runs_batch_starts": ["x"]}, r"'runs_batch_starts' must hold a list of row numbers"),
        ({"runs_batch_starts": [1]}, r"runs\.arrow: must hold a row for each of the 40 instances"),
    ):
        build_store(source, directory)
        seal_again(directory, **changes)
        with pytest.raises(InputError, match=message):
            open_or_build(directory, tmp_path / "cache")
    build_store(source, directory)
    seal_again(directory, source="x\x1b[2J", notes=["y\x1b[2J"])
    store = open_or_build(directory, tmp_path / "cache")
    assert (store.description["source"], store.notes) == (r"x\x1b[2J", (r"y\x1b[2J",))
    shutil.copy(directory / "images.arrow", directory / "instances.arrow")
    seal_again(directory)
    with pytest.raises(InputError, match=r"instances\.arrow: damaged .*its columns are others"):
        open_or_build(directory, tmp_path / "cache")


def test_a_whole_store_of_somebody_else_is_read(source: Path, tmp_path: Path) -> None:
    build_store(source, tmp_path / "a.store")
    store = open_or_build(tmp_path / "a.store", tmp_path / "cache")
    assert objects_of(store) == objects_of(AnnotationStore(tmp_path / "a.store"))
    assert not (tmp_path / "cache").exists()
