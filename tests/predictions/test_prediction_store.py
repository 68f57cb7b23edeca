"""The prediction store: what goes in comes out; what does not fit is refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.errors import InputError
from src.predictions.candidates import Candidates
from src.predictions.files import clear_other_ranks
from src.predictions.store import PredictionStore
from tests.helpers.candidates import make_candidates
from tests.helpers.stores import SETTINGS, check_same, make_images, make_writer, write_store


@pytest.mark.parametrize("mask_dtype", ["float16", "float32"])
def test_round_trip(tmp_path: Path, mask_dtype: str) -> None:
    images = make_images(0, 10, complete_above_score=0.05)
    other_frame = images[3]
    images[3] = Candidates(
        image_id=other_frame.image_id,
        size_hw=other_frame.size_hw,
        boxes_xyxy=other_frame.boxes_xyxy,
        scores=other_frame.scores,
        category_ids=other_frame.category_ids,
        mask_probabilities=other_frame.mask_probabilities,
        complete_above_score=0.25,
        nms_boxes_xyxy=other_frame.boxes_xyxy * np.float32(0.3),
    )
    write_store(tmp_path, images[::-1], mask_dtype=mask_dtype, min_score=0.01, max_candidates=99)
    store = pickle.loads(pickle.dumps(PredictionStore(tmp_path)))
    assert len(store) == 10
    assert store.image_ids == tuple(image.image_id for image in images)
    assert store.settings == SETTINGS
    assert store.category_ids == tuple(range(46))
    assert (store.meta.min_score, store.meta.max_candidates) == (0.01, 99)
    for index, image in enumerate(images):
        assert store.index_of(image.image_id) == index
        assert store.size_hw(index) == image.size_hw
        check_same(store.candidates(index), image, mask_dtype)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "meta.json",
        "rank00000_done.json",
        *(f"rank00000_shard{number:05d}.arrow" for number in range(3)),
    ]


def test_a_store_from_before_the_keys_were_renamed(tmp_path: Path) -> None:
    before = {"max_unlikely_candidates": 300, "datamodule": {"train_annotations": "a.csv"}}
    write_store(tmp_path, make_images(0, 3), settings=before)
    now = {"max_low_score_candidates": 300, "datamodule": {"annotations": "a.csv"}}
    assert PredictionStore(tmp_path).settings == now
    make_writer(tmp_path, settings=now)  # the run of then resumes


def test_empty_store(tmp_path: Path) -> None:
    write_store(tmp_path, [])
    assert len(PredictionStore(tmp_path)) == 0


def test_ranks_are_merged_by_image_id_and_duplicates_dropped(tmp_path: Path) -> None:
    images = make_images(0, 9)
    write_store(tmp_path, images[1::2], rank=1)
    # a distributed sampler padded rank 0 with an image of rank 1
    write_store(tmp_path / "other", [*images[::2], images[1]], rank=0)
    for path in (tmp_path / "other").iterdir():
        path.replace(tmp_path / path.name)
    (tmp_path / "other").rmdir()
    store = PredictionStore(tmp_path)
    assert store.image_ids == tuple(image.image_id for image in images)
    for index, image in enumerate(images):
        check_same(store.candidates(index), image, "float16")


def test_a_second_run_writes_what_is_missing(tmp_path: Path) -> None:
    images = make_images(0, 12)
    write_store(tmp_path, images[:6])
    with make_writer(tmp_path) as writer:
        assert writer.written_image_ids == {image.image_id for image in images[:6]}
        for image in images:
            writer.add(image)
    store = PredictionStore(tmp_path)
    assert len(store) == 12
    check_same(store.candidates(11), images[11], "float16")


def test_a_deleted_shard_is_noticed_and_written_again(tmp_path: Path) -> None:
    images = make_images(0, 12)
    write_store(tmp_path, images)
    for number in (1, 2):  # in the middle of the series, and at its end
        lost = tmp_path / f"rank00000_shard{number:05d}.arrow"
        lost.unlink()
        with pytest.raises(InputError, match=rf"{lost.name}: missing; run the command that made"):
            PredictionStore(tmp_path)
        write_store(tmp_path, images)
        assert len(PredictionStore(tmp_path)) == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"settings": SETTINGS | {"checkpoint": "ffff"}},
            r"another run; .* Different: settings\.checkpoint: 'a1b2' there, 'ffff' here$",
        ),
        (
            {"settings": SETTINGS | {"module": {"min_score": 0.1, "tta": "flip"}}},
            r"settings\.module\.min_score: 0\.001 there, 0\.1 here; "
            r"settings\.module\.tta: absent there, 'flip' here",
        ),
        ({"settings": {}}, r"settings\.scales: \[\[1200, 1900\]\] there, absent here"),
        ({"category_ids": [1, 2]}, r"category_ids: \[0, 1, .*2\.\.\. there, \[1, 2\] here"),
        ({"mask_dtype": "float32"}, r"mask_dtype: 'float16' there, 'float32' here"),
        ({"mask_size_hw": (14, 14)}, r"mask_size_hw: \[28, 28\] there, \[14, 14\] here"),
        ({"min_score": 0.1}, r"score_floor: 0\.0 there, 0\.1 here"),
        ({"max_candidates": 7}, r"max_candidates: None there, 7 here"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_store(tmp_path, make_images(0, 2))
    with pytest.raises(InputError, match=message):
        make_writer(tmp_path, **changes)


def test_settings_of_tuples_and_lists_are_the_same(tmp_path: Path) -> None:
    write_store(tmp_path, [], settings={"scale": (1200, 1900)})
    write_store(tmp_path, [], settings={"scale": [1200, 1900]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_dtype": "int8"}, r"mask_dtype must be one of float16, float32, rle, got 'int8'"),
        ({"settings": {"path": Path("a")}}, r"must be plain JSON \(.*PosixPath"),
        ({"settings": {"lr": float("nan")}}, r"must be plain JSON"),
        ({"images_per_shard": 0}, r"images_per_shard must be at least 1, got 0"),
    ],
)
def test_bad_arguments(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_writer(tmp_path, **changes)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(InputError, match=r"store: must be a folder for predictions"):
        make_writer(tmp_path / "store")


def test_what_does_not_fit_is_not_written(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, category_ids=range(5))
    with pytest.raises(
        ValueError, match=r"category must be one of \(0, 1, 2, 3, 4\), got \d+ \(image\.jpg\)"
    ):
        writer.add(make_candidates(0))
    fits = make_candidates(0, categories=5)
    fits.boxes_xyxy[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"boxes_xyxy must be finite \(image\.jpg\)"):
        writer.add(fits)
    writer = make_writer(tmp_path / "small", mask_size_hw=(14, 14))
    with pytest.raises(ValueError, match=r"masks must be of size \(14, 14\), got \(28, 28\)"):
        writer.add(make_candidates(0))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("boxes_xyxy", r"boxes_xyxy must have shape \(3, 4\) for 3 scores, got \(2, 4\) \(a\)"),
        ("category_ids", r"category_ids must have shape \(3,\) .* got \(2,\)"),
        (
            "mask_probabilities",
            r"mask_probabilities must have shape \(3, 28, 28\) .* \(2, 28, 28\)",
        ),
        ("nms_boxes_xyxy", r"nms_boxes_xyxy must have shape \(3, 4\) .* got \(2, 4\)"),
    ],
)
def test_candidates_of_unequal_length(field: str, message: str) -> None:
    made = make_candidates(0, count=3)
    arrays = {
        name: getattr(made, name)
        for name in ("boxes_xyxy", "scores", "category_ids", "mask_probabilities")
    }
    arrays["nms_boxes_xyxy"] = made.boxes_xyxy
    arrays[field] = arrays[field][:2]
    with pytest.raises(ValueError, match=message):
        Candidates(image_id="a", size_hw=(1, 1), complete_above_score=0.0, **arrays)


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    write_store(tmp_path, make_images(0, 3))
    store = PredictionStore(tmp_path)
    with pytest.raises(InputError, match=r"holds no predictions of image 'x\.jpg'"):
        store.index_of("x.jpg")
    store.check_image_ids(["001.jpg"], source="sample.csv")
    with pytest.raises(
        InputError, match=r"2 of the 3 images of sample\.csv have no predictions, .* 'x\.jpg'"
    ):
        store.check_image_ids(["y.jpg", "001.jpg", "x.jpg"], source="sample.csv")


def test_a_folder_without_images_takes_other_settings(tmp_path: Path) -> None:
    make_writer(tmp_path, settings={"images": "wrong path"})
    write_store(tmp_path, make_images(0, 2))
    assert PredictionStore(tmp_path).settings == SETTINGS


def test_failed_images_are_in_the_store_until_they_are_predicted(tmp_path: Path) -> None:
    images = make_images(0, 3)
    with make_writer(tmp_path, rank=1) as writer:
        writer.add(images[0])
        writer.add_failed("002.jpg", "truncated")
        writer.add_failed("001.jpg", "gone")
        # at once, not at the end
        assert dict(PredictionStore(tmp_path).failed) == {"001.jpg": "gone", "002.jpg": "truncated"}
    with pytest.raises(
        InputError, match=r"1 of the 2 images of s\.csv have no .* '001\.jpg' \(gone\); run"
    ):
        PredictionStore(tmp_path).check_image_ids(["000.jpg", "001.jpg"], source="s.csv")
    # another number of processes: rank 1's file is still there
    write_store(tmp_path, [images[1]])
    assert dict(PredictionStore(tmp_path).failed) == {"002.jpg": "truncated"}
    write_store(tmp_path, [images[2]], rank=1)
    assert dict(PredictionStore(tmp_path).failed) == {}
    assert len(PredictionStore(tmp_path)) == 3


def test_what_more_processes_left_is_cleared(tmp_path: Path) -> None:
    write_store(tmp_path, make_images(0, 2), rank=3)
    left = ["rank00002_failed.json", ".rank00003_shard00001.arrow.h-1-1.part"]
    kept = ["rank00001_failed.json", ".rank00001_shard00000.arrow.h-1-1.part"]
    for name in (*left, *kept):
        (tmp_path / name).write_text("{}")
    clear_other_ranks(tmp_path, world_size=2)
    assert not any((tmp_path / name).exists() for name in left)
    assert all((tmp_path / name).exists() for name in kept)
    assert len(PredictionStore(tmp_path)) == 2


def test_candidates_are_counted_without_reading_them(tmp_path: Path) -> None:
    images = make_images(0, 5)
    write_store(tmp_path, images)
    store = PredictionStore(tmp_path)
    assert [store.count(index) for index in range(5)] == [len(image) for image in images]
