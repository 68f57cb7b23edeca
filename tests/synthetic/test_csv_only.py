"""A train.csv of any length: rows like the real ones, valid, in constant memory."""

from __future__ import annotations

import tracemalloc
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import InputError
from src.rle import Rle, RleBatch, intersection_px, subtract
from src.synthetic import synthesize_csv
from src.synthetic.csv_only import masks_of_edges, outline_edges
from src.synthetic.kinds import FIRST_PART
from tests.helpers.synthetic_data import by_image, read_rows


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("csv") / "scale"
    assert synthesize_csv(folder, 500, seed=3)
    return folder / "train.csv"


def test_exactly_as_many_rows_as_asked(table: Path) -> None:
    rows = read_rows(table)
    assert len(rows) == 500
    assert {path.name for path in table.parent.iterdir()} == {
        "train.csv", "label_descriptions.json", "synthesis.json",
    }  # fmt: skip


def test_rows_are_as_long_as_the_real_ones(table: Path) -> None:
    rows = read_rows(table)
    images = by_image(rows)
    assert 6_000 < table.stat().st_size / len(rows) < 14_000
    assert 5.5 < len(rows) / len(images) < 9.5
    assert 300 < np.median([len(row.numbers) / 2 for row in rows]) < 1500
    assert all(3000 <= max(row.size_hw) <= 6000 for row in rows)
    ids = [row.image_id for row in rows]
    assert ids == sorted(ids)
    assert 0.005 < np.mean(["_" in row.class_id for row in rows]) < 0.08


def test_masks_are_valid_disjoint_and_nested(table: Path) -> None:
    for rows in list(by_image(read_rows(table)).values())[:25]:
        masks = [Rle(row.runs.astype(np.int32), row.size_hw) for row in rows]
        assert RleBatch.of(masks).problems() == {}
        for (one, a), (other, b) in combinations(zip(rows, masks, strict=True), 2):
            if one.category == other.category:
                assert intersection_px(a, b) == 0
        garments = [own for row, own in zip(rows, masks, strict=True) if row.category < FIRST_PART]
        for row, own in zip(rows, masks, strict=True):
            if row.category >= FIRST_PART:
                assert any(subtract(own, garment).area_px == 0 for garment in garments)


def test_same_seed_same_bytes_whatever_the_processes(table: Path, tmp_path: Path) -> None:
    synthesize_csv(tmp_path / "again", 500, seed=3, workers=2)
    assert (tmp_path / "again" / "train.csv").read_bytes() == table.read_bytes()
    assert not synthesize_csv(tmp_path / "again", 500, seed=3)


def test_a_longer_file_starts_with_the_shorter(table: Path, tmp_path: Path) -> None:
    synthesize_csv(tmp_path / "short", 120, seed=3)
    short = (tmp_path / "short" / "train.csv").read_bytes()
    assert table.read_bytes().startswith(short)


def test_memory_does_not_grow_with_the_rows(table: Path, tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        tracemalloc.start()
        synthesize_csv(tmp_path / str(rows), rows, seed=3)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(1600) < 1.25 * peak(400)


def test_bad_values_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="num_rows must be a whole number from 1 to"):
        synthesize_csv(tmp_path / "x", 0)
    with pytest.raises(InputError, match=r"image_size\.0 must be a whole number from 64"):
        synthesize_csv(tmp_path / "x", 5, image_size=(20, 300))
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match="the folder is not empty"):
        synthesize_csv(tmp_path, 5)


def outline_runs(outlines: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    masks = masks_of_edges([outline_edges(outlines)], [size_hw])
    assert masks.offsets.tolist() == [0, len(masks.runs)]
    assert masks.problems() == {}
    return masks.runs


def inside(outlines: list[np.ndarray], x: float, y: float) -> bool:
    """Even-odd rule, one ray downward along the column."""
    crossings = 0
    for outline in outlines:
        for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            if (x0 <= x) != (x1 <= x):
                crossings += y0 + (x - x0) * (y1 - y0) / (x1 - x0) > y
    return crossings % 2 == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 9), st.integers(1, 3))
def test_outline_runs_are_the_pixels_within(seed: int, corners: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    outlines = [rng.uniform(-4, 16, (corners, 2)) for _ in range(count)]
    height, width = 11, 13
    runs = outline_runs(outlines, (height, width))
    flat = np.zeros(height * width, dtype=bool)
    for start, length in runs:
        flat[start : start + length] = True
    expected = [inside(outlines, x, y) for x in range(width) for y in range(height)]
    assert np.array_equal(flat, expected)


def test_outline_runs_of_nothing() -> None:
    assert outline_runs([], (5, 5)).shape == (0, 2)
    assert outline_runs([np.array([[20.0, 20], [30, 20], [30, 30]])], (5, 5)).shape == (0, 2)


def test_many_objects_at_once_are_each_alone() -> None:
    rng = np.random.default_rng(4)
    shapes = [[rng.uniform(0, 12, (5, 2))] for _ in range(6)] + [[]]
    sizes = [(9 + i, 14 - i) for i in range(7)]
    masks = masks_of_edges([outline_edges(shape) for shape in shapes], sizes)
    for i, (shape, size_hw) in enumerate(zip(shapes, sizes, strict=True)):
        assert masks[i] == Rle(outline_runs(shape, size_hw), size_hw)
