"""Submissions are valid by construction, checked by a reader that knows only the rules."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.annotations.competition import Competition
from src.errors import InputError
from src.postprocess.detections import Detections
from src.postprocess.pipeline import postprocess
from src.postprocess.steps.nms import NMS_KINDS
from src.rle import Bitmasks
from src.submission.validation import check_submission
from src.submission.writing import write_submission
from tests.helpers.candidates import (
    DEFAULT,
    DEFAULT_STEPS,
    WINNER,
    make_candidates,
    make_settings,
)
from tests.helpers.competitions import IMATERIALIST_2019, IMATERIALIST_2020

LATE_STEPS = ("max_per_class", "nms", "masks", "min_area", "suppress_overlaps", "cap", "score")


def make_detections(image_id: str, masks: list[np.ndarray], categories: list[int]) -> Detections:
    count = len(masks)
    return Detections(
        image_id=image_id,
        category_ids=np.array(categories, dtype=np.int16),
        scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        boxes_xyxy=np.zeros((count, 4), dtype=np.float32),
        bitmasks=Bitmasks.pack(np.array(masks, dtype=bool).reshape(count, 512, 512)),
        is_exact=True,
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def draw(encoded: str) -> np.ndarray:
    """Decode one row pixel by pixel, checking every rule on runs."""
    numbers = [int(number) for number in encoded.split(" ")]
    assert len(numbers) % 2 == 0
    assert numbers
    pixels = np.zeros(512 * 512, dtype=bool)
    after = 1
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        assert start >= after
        assert length >= 1
        after = start + length
        assert after - 1 <= 512 * 512
        pixels[start - 1 : after - 1] = True
    return pixels.reshape(512, 512).T


def check_valid(path: Path, image_ids: list[str], *, disjoint: bool) -> list[dict[str, str]]:
    assert path.read_text().startswith("ImageId,EncodedPixels,ClassId\n")
    rows = read_rows(path)
    assert list(dict.fromkeys(row["ImageId"] for row in rows)) == image_ids
    masks: dict[tuple[str, str], np.ndarray] = {}
    for row in rows:
        assert 0 <= int(row["ClassId"]) <= 45
        mask = draw(row["EncodedPixels"])
        key = row["ImageId"], row["ClassId"]
        if disjoint:
            assert not (masks.get(key, False) & mask).any()
        masks[key] = masks.get(key, False) | mask
    return rows


@settings(max_examples=25, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4, unique=True),
    changes=st.sampled_from([WINNER, DEFAULT | {"suppress_overlaps": True}, DEFAULT]),
    score_threshold=st.sampled_from([0.001, 0.5, 0.99]),
    categories=st.sampled_from([1, 3, 46]),
)
def test_what_is_written_is_valid(
    tmp_path_factory: pytest.TempPathFactory,
    seeds: list[int],
    changes: dict[str, Any],
    score_threshold: float,
    categories: int,
) -> None:
    path = tmp_path_factory.mktemp("submission") / "submission.csv"
    rules = make_settings(**changes | {"score_threshold": score_threshold})
    found = [
        postprocess(make_candidates(seed, image_id=f"{seed}.jpg", categories=categories), rules)
        for seed in seeds
    ]
    report = write_submission(path, found, competition=IMATERIALIST_2019)
    image_ids = [f"{seed}.jpg" for seed in seeds]
    rows = check_valid(path, image_ids, disjoint=report.overlapping_images == 0)
    if rules.suppress_overlaps:
        assert report.overlapping_images == 0
    assert report.images == len(seeds)
    assert report.num_detections == len(rows) - report.empty_images == sum(map(len, found))
    wanted = [mask for objects in found for mask in objects.bitmasks.unpack()]
    drawn = [draw(row["EncodedPixels"]) for row in rows if row["EncodedPixels"] != "1 1"]
    assert len(drawn) == len(wanted)
    assert all(np.array_equal(a, b) for a, b in zip(drawn, wanted, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(["imaterialist_2019", "imaterialist_2020"]),
    size_hw=st.sampled_from([(48, 36), (5, 300), (301, 299)]),
    changes=st.fixed_dictionaries(
        {
            "score_threshold": st.sampled_from([0.0, 0.4, 0.99]),
            "score_threshold_per_class": st.sampled_from([None, {0: 0.9, 1: 0.1}]),
            "nms_kind": st.sampled_from(NMS_KINDS),
            "nms_iou_threshold": st.sampled_from([0.0, 0.5, 1.0]),
            "max_per_image": st.sampled_from([None, 5]),
            "remove_categories": st.sampled_from([[], ["attribute_classes"]]),
            "max_per_class": st.sampled_from([None, 2]),
            "mask_threshold": st.sampled_from([0.01, 0.5, 1.0]),
            "min_area_px": st.sampled_from([0, 20, 9000]),
            "min_area_raster": st.sampled_from(["512x512", "long_edge_1024"]),
            "steps": st.sampled_from([DEFAULT_STEPS, (*LATE_STEPS, "remove")]),
        }
    ),
)
def test_whatever_is_set_with_suppression_the_file_is_valid(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    name: str,
    size_hw: tuple[int, int],
    changes: dict[str, Any],
) -> None:
    competition = Competition.preset(name)
    images = [
        make_candidates(
            seed + number,
            image_id=f"{number}.jpg",
            categories=categories,
            count=20 * number,
            size_hw=size_hw,
        )
        for number, categories in enumerate((1, 3, 30))
    ]
    rules = make_settings(**changes, suppress_overlaps=True)
    path = tmp_path_factory.mktemp("submission") / "submission.csv"
    found = [postprocess(image, rules, raster=competition.raster) for image in images]
    report = write_submission(path, found, competition=competition)
    names = [competition.image_id(image.image_id) for image in images]
    checked = check_submission(
        path,
        competition=competition,
        image_ids=names,
        sizes_hw=dict.fromkeys(names, size_hw),
    )
    assert checked.violations == ()
    assert (checked.images, report.images, report.overlapping_images) == (3, 3, 0)
    if name == "imaterialist_2019":
        check_valid(path, names, disjoint=True)


def test_golden_file_of_2020(tmp_path: Path) -> None:
    mask = np.zeros((1, 1024, 2), dtype=bool)
    mask[0, 1022:, 0] = True
    mask[0, 0, 1] = True
    made = Detections(
        image_id="b.jpg",
        category_ids=np.array([33], dtype=np.int16),
        scores=np.array([0.5], dtype=np.float32),
        boxes_xyxy=np.zeros((1, 4), dtype=np.float32),
        bitmasks=Bitmasks.pack(mask),
        is_exact=True,
    )
    path = tmp_path / "submission.csv"
    empty = make_detections("a.jpg", [], [])
    write_submission(path, [made, empty], competition=IMATERIALIST_2020)
    assert path.read_text() == (
        "ImageId,EncodedPixels,ClassId,AttributesIds\nb,1023 3,33,\na,1 1,23,\n"
    )
    with pytest.raises(InputError, match="competition must be one of coco, dsb_2018, imat"):
        Competition.preset("2020")


def test_golden_file(tmp_path: Path) -> None:
    mask = np.zeros((512, 512), dtype=bool)
    mask[2:4, 0] = True
    mask[511, 1] = True
    mask[0, 2] = True
    corner = np.zeros((512, 512), dtype=bool)
    corner[511, 511] = True
    path = tmp_path / "new" / "submission.csv"
    report = write_submission(
        path,
        [
            make_detections("b.jpg", [mask, corner], [33, 0]),
            make_detections("a.jpg", [], []),
        ],
        competition=IMATERIALIST_2019,
    )
    assert path.read_bytes() == (
        b"ImageId,EncodedPixels,ClassId\nb.jpg,3 2 1024 2,33\nb.jpg,262144 1,0\na.jpg,1 1,23\n"
    )
    assert (report.images, report.num_detections, report.empty_images) == (2, 2, 1)


def test_overlapping_images_are_counted(tmp_path: Path) -> None:
    full = np.ones((512, 512), dtype=bool)
    report = write_submission(
        tmp_path / "s.csv",
        [
            make_detections("a.jpg", [full, full], [3, 3]),
            make_detections("b.jpg", [full, full], [3, 4]),
        ],
        competition=IMATERIALIST_2019,
    )
    assert report.overlapping_images == 1


def test_illegal_category_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("old")
    full = np.ones((512, 512), dtype=bool)
    with pytest.raises(
        InputError, match=r"category must be 0 to 45 in a submission, got 46 \(a\.jpg\)"
    ):
        write_submission(
            path, [make_detections("a.jpg", [full], [46])], competition=IMATERIALIST_2019
        )
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.csv"]


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        write_submission(tmp_path / "file" / "s.csv", [], competition=IMATERIALIST_2019)
