"""What the datamodule refuses, and how it says so."""

from __future__ import annotations

import json

import pytest

from src.datamodules.image_lists import check_images
from src.errors import InputError
from tests.helpers.images import Data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predict_split": "train"}, "datamodule.predict_split must be one of validation, test"),
        (
            {"train_short_edge_px": (1200, 600)},
            r"datamodule.train_short_edge_px must be .* the least first, got \[1200, 600\]",
        ),
        (
            {"train_short_edge_px": (0, 60)},
            r"train_short_edge_px must be .* from 1 up, .*, got \[0, 60\]",
        ),
        ({"train_short_edge_px": (1, 2, 3)}, r"train_short_edge_px must be .*, got \[1, 2, 3\]"),
        (
            {"train_long_edge_px": 59},
            "train_long_edge_px must be at least datamodule.train_short_edge_px=60, got 59",
        ),
        (
            {"predict_long_edge_px": 20},
            "datamodule.predict_long_edge_px must be at least .*=48, got 20",
        ),
        (
            {"repeat_factor": 0},
            "datamodule.repeat_factor must be a number above 0 and at most 1, or null",
        ),
        (
            {"repeat_factor": 1.5},
            "datamodule.repeat_factor must be .* above 0 and at most 1, .* got 1.5",
        ),
        (
            {"predict_scales": []},
            r"datamodule.predict_scales must be null or at least one pair .*, got \[\]",
        ),
        (
            {"predict_scales": [[60, 50]]},
            r"datamodule.predict_scales must be .* pair \[SHORT,LONG\].*, got \[60, 50\]",
        ),
        (
            {"predict_scales": [[40, 80], [31, 80]]},
            r"predict_scales must be .* 32 <= SHORT <= LONG, got \[31, 80\]",
        ),
        (
            {"predict_scales": [1000, 1600]},
            r"predict_scales must be .* pair \[SHORT,LONG\].*, got 1000",
        ),
        ({"predict_scales": [[50, "80"]]}, r"predict_scales must be .*, got \[50, '80'\]"),
        ({"predict_scales": [[50, 60, 80]]}, r"predict_scales must be .*, got \[50, 60, 80\]"),
        (
            {"flip_probability": 1.5},
            "datamodule.flip_probability must be a number from 0 to 1, got 1.5",
        ),
        ({"batch_size": 0}, "datamodule.batch_size must be a whole number of at least 1, got 0"),
        (
            {"predict_batch_size": -1},
            "datamodule.predict_batch_size must be a whole number of at least 1, got -1",
        ),
        (
            {"num_workers": -1},
            "datamodule.num_workers must be a whole number of at least 0, got -1",
        ),
        (
            {"prefetch_factor": 0},
            "datamodule.prefetch_factor must be a whole number of at least 1, got 0",
        ),
        ({"seed": -1}, "datamodule.seed must be a whole number of at least 0, got -1"),
        ({"pixel_augmentations": {"a": 1}}, "pixel_augmentations.a must be .*, got int"),
    ],
)
def test_bad_values_are_refused_at_once(data: Data, changes, message):
    with pytest.raises(InputError, match=message):
        data.datamodule(**changes)


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        (
            "fit",
            {"annotations": None},
            "datamodule.annotations must be the annotation file, got null",
        ),
        ("fit", {"annotations": "none.csv"}, "none.csv"),
        ("fit", {"images": None}, "datamodule.images must be the folder of the images, got null"),
        ("fit", {"images": "nowhere"}, "datamodule.images must be a folder, got nowhere"),
        (
            "fit",
            {"batch_size": 13},
            r"datamodule.batch_size must be at most 12 on 1 device\(s\), .* 12 training .*, got 13",
        ),
        ("fit", {"category_ids": [3]}, r"category_ids must hold .* 6, too, got \[3\]"),
        (
            "fit",
            {"num_validation_images": 3},
            "datamodule.num_validation_images must be 4 .*, got 3",
        ),
        (
            "predict",
            {"test_images": None},
            "datamodule.test_images must be the folder of the images, got null",
        ),
        (
            "test",
            {"test_images": "nowhere"},
            "datamodule.test_images must be a folder, got nowhere",
        ),
        ("predict", {"sample_submission": "none.csv"}, "none.csv: no such file"),
    ],
)
def test_bad_data_is_named(data: Data, stage, changes, message):
    data.datamodule().setup("fit")
    with pytest.raises(InputError, match=message):
        data.datamodule(**changes).setup(stage)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ImageId\nt0.jpg\nno.jpg\n", r"s\.csv: image id 'no\.jpg' has no image .*1 of 2 ids"),
        ("ImageId\n../t0.jpg\n", r"ImageId must be a path relative to .* \(.*s\.csv, row 2\)"),
        ("Image\nt0.jpg\n", r"columns must have ImageId, got Image \(.*s\.csv"),
        ("", r"columns must have ImageId, got an empty file \(.*s\.csv"),
        ("ImageId\n", r"must have one row or more, got only a header \(.*s\.csv"),
    ],
)
def test_bad_sample_submission_is_named(data: Data, tmp_path, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        data.datamodule(sample_submission=str(tmp_path / "s.csv")).setup("test")


def test_prediction_goes_on_without_some_images(data: Data, tmp_path):
    sample = tmp_path / "s.csv"
    sample.write_text("ImageId\nt0.jpg\nno.jpg\n")
    datamodule = data.datamodule(sample_submission=str(sample))
    datamodule.setup("predict")
    assert [*datamodule.images_to_predict.image_ids] == ["t0.jpg", "no.jpg"]
    batches = list(datamodule.predict_dataloader())
    failures = {name: text for batch in batches for name, text in batch["failures"].items()}
    assert list(failures) == ["no.jpg"]
    assert "no.jpg: the image file is missing" in failures["no.jpg"]
    sample.write_text("ImageId\nt0.jpg\n../t1.jpg\n")
    with pytest.raises(
        InputError, match=r"ImageId must be .* got '\.\./t1\.jpg' \(.*s\.csv, row 3\)"
    ):
        datamodule.setup("predict")


def test_missing_images_are_named_and_counted(data: Data, tmp_path):
    (tmp_path / "c.jpg").touch()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d.jpg").touch()
    assert check_images("images", tmp_path, ["c.jpg", "more/d.jpg"]) == tmp_path
    with pytest.raises(InputError, match=r"images=.*the image file a\.jpg is missing \(2 of 3 are"):
        check_images("images", tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    check_images("images", tmp_path, ["a.jpg", "b.jpg", "c.jpg"], some_suffice=True)
    with pytest.raises(InputError, match=r"the image file a\.jpg is missing \(2 of 2 are"):
        check_images("images", tmp_path, ["a.jpg", "b.jpg"], some_suffice=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no images \(\.jpg \.jpeg \.png .*\) in this"):
        data.datamodule(test_images=str(tmp_path / "empty")).setup("test")


def test_split_of_another_file_is_refused(data: Data, tmp_path):
    path = tmp_path / "split.json"
    split = {"validation": ["x.jpg"], "train": ["0001.jpg"], "seed": 1, "annotations": "old.csv"}
    path.write_text(json.dumps(split))
    with pytest.raises(InputError, match=r"split\.json: image id 'x\.jpg' is not in .*train\.csv"):
        data.datamodule(split_file=str(path), num_validation_images=None, split_seed=None).setup(
            "fit"
        )
