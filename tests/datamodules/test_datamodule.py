from __future__ import annotations

import json
import logging
import shutil

import lightning
import pytest
import torch

from src.annotations.errors import InputError
from src.config import one_line
from src.datamodules.checks import check_photos
from src.datamodules.split_file import read_split
from tests.datamodules.conftest import Data


class Recorder(lightning.LightningModule):
    """Writes down what each loader gives; trains one number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list] = {"fit": [], "validate": [], "predict": [], "test": []}

    def note(self, stage: str, batch: dict) -> None:
        for pixels, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
            assert pixels.dtype == torch.uint8
            assert pixels.shape == (3, *sample.img_shape)
            self.seen[stage].append((self.current_epoch, sample))

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        self.note("fit", batch)
        return self.weight * batch["data_samples"][0].gt_instances.bboxes.sum()

    def validation_step(self, batch: dict, _: int) -> None:
        self.note("validate", batch)

    def predict_step(self, batch: dict, _: int) -> None:
        for view in batch["views"]:
            self.note("predict", view)

    def test_step(self, batch: dict, batch_idx: int) -> None:
        self.note("test", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def make_trainer(**changes) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **changes,
    )


def ids(recorder: Recorder, stage: str) -> list[str]:
    return [sample.img_id for _, sample in recorder.seen[stage]]


def test_fit_makes_the_split_and_trains_and_validates_by_it(data: Data, tmp_path):
    split_file = tmp_path / "made" / "split.json"
    recorder = Recorder()
    datamodule = data.datamodule(split_file=str(split_file), num_workers=1)
    make_trainer(max_epochs=2).fit(recorder, datamodule=datamodule)
    split = read_split(split_file)
    assert len(split.validation) == 4
    assert set(split.validation) | set(split.train) == set(data.pictures)
    assert datamodule.split == split
    assert ids(recorder, "validate") == [*split.validation] * 2
    trained = recorder.seen["fit"]
    for epoch in range(2):
        of_epoch = [sample for number, sample in trained if number == epoch]
        assert sorted(sample.img_id for sample in of_epoch) == sorted(split.train)
    shapes = [[(s.img_id, s.img_shape, s.flip) for n, s in trained if n == e] for e in (0, 1)]
    assert shapes[0] != shapes[1]
    assert set(shapes[0]) != set(shapes[1])  # not only the order differs
    for _, sample in recorder.seen["validate"]:
        assert "gt_instances" not in sample
        assert not sample.flip
        assert min(sample.img_shape) <= 48
        assert max(sample.img_shape) <= 80


def test_repaired_sizes_and_skipped_rows_are_said_once(data: Data, tmp_path, caplog):
    source = tmp_path / "train.csv"
    rows = (data.directory / "train.csv").read_text()
    source.write_text(rows + "0001.jpg,1 0,9,9,3\n")
    options = {
        "train_annotations": str(source),
        "cache_directory": str(tmp_path / "cache"),
        "on_bad_rows": "skip",
    }
    with caplog.at_level(logging.INFO):
        data.datamodule(**options).setup("fit")
    height, width = data.pictures["0002.jpg"].image.shape[:2]
    assert (
        f"0002.jpg: annotated as {width} x {height} px (height x width), the photo has "
        f"{height} x {width}: exchanged, repaired" in caplog.text
    )
    assert "1 bad rows left out, see " in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        data.datamodule(**options).setup("fit")
    assert caplog.text == ""


def test_predict_takes_every_photo_of_its_split_once(data: Data):
    recorder = Recorder()
    datamodule = data.datamodule(predict_batch_size=2)
    make_trainer().predict(recorder, datamodule=datamodule, return_predictions=False)
    assert ids(recorder, "predict") == ["t0.jpg", "t1.jpg", "t2.jpg"]
    assert [s.ori_shape for _, s in recorder.seen["predict"]] == [(70, 90), (71, 90), (72, 90)]
    recorder = Recorder()
    datamodule = data.datamodule(predict_split="validation", predict_batch_size=3)
    make_trainer().predict(recorder, datamodule=datamodule, return_predictions=False)
    assert ids(recorder, "predict") == [*datamodule.split.validation]
    recorder = Recorder()
    make_trainer().test(recorder, datamodule=data.datamodule(), verbose=False)
    assert ids(recorder, "test") == ["t0.jpg", "t1.jpg", "t2.jpg"]


def test_test_photos_need_no_annotations(data: Data, tmp_path):
    recorder = Recorder()
    datamodule = data.datamodule(
        train_annotations=None,
        train_images=None,
        split_file=str(tmp_path / "none.json"),
        cache_directory=str(tmp_path / "cache"),
    )
    make_trainer().predict(recorder, datamodule=datamodule, return_predictions=False)
    assert len(recorder.seen["predict"]) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spelling", ["t{}.jpg", "t{}"])
def test_sample_submission_says_which_photos_and_in_which_order(data: Data, tmp_path, spelling):
    path = tmp_path / "sample_submission.csv"
    rows = [f"{spelling.format(number)},1 1,23" for number in (2, 0, 2)]
    path.write_text("\n".join(["ImageId,EncodedPixels,ClassId", *rows]) + "\n")
    datamodule = data.datamodule(sample_submission=str(path))
    datamodule.setup("predict")
    batches = [view for batch in datamodule.predict_dataloader() for view in batch["views"]]
    samples = [sample for batch in batches for sample in batch["data_samples"]]
    assert [s.img_id for s in samples] == [spelling.format(2), spelling.format(0)]
    assert [s.ori_shape for s in samples] == [(72, 90), (70, 90)]


def test_photos_without_objects_are_validated_but_not_trained_on(data: Data, tmp_path, caplog):
    """COCO JSON of 16 photos of which 9 have an object."""
    content = {
        "images": [
            {"id": n, "file_name": p.image_id, "height": len(p.image), "width": len(p.image[0])}
            for n, p in enumerate(data.pictures.values())
        ],
        "categories": [{"id": 3, "name": "thing", "supercategory": "things"}],
        "annotations": [
            {
                "id": n,
                "image_id": n,
                "category_id": 3,
                "segmentation": [[5, 5, 30, 5, 30, 30, 5, 30]],
                "bbox": [5, 5, 25, 25],
                "area": 625,
                "iscrowd": 0,
            }
            for n in range(9)
        ],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    datamodule = data.datamodule(
        train_annotations=str(path), split_file=str(tmp_path / "split.json"), validation_images=5
    )
    with caplog.at_level(logging.INFO):
        datamodule.setup("fit")
    store, indices = datamodule.store, datamodule.train_dataset.indices
    assert len(datamodule.validation_dataset) == 5
    assert all(len(store.instances(index)) == 1 for index in indices)
    empty = [i for i in datamodule.split.train if not len(store.instances(store.index_of(i)))]
    assert len(empty) > 0
    assert len(indices) + len(empty) == 11
    assert f"{len(empty)} training photos without objects left out" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predict_split": "train"}, "datamodule.predict_split=train: legal are validation and"),
        (
            {"train_short_edge_px": (1200, 600)},
            r"datamodule.train_short_edge_px=\[1200, 600\]: .* the least first",
        ),
        ({"train_short_edge_px": (0, 60)}, r"train_short_edge_px=\[0, 60\]: .* from 1 up"),
        ({"train_short_edge_px": (1, 2, 3)}, r"train_short_edge_px=\[1, 2, 3\]"),
        (
            {"train_long_edge_px": 59},
            "datamodule.train_long_edge_px=59 is less than datamodule.train_short_edge_px=60",
        ),
        ({"predict_long_edge_px": 20}, "datamodule.predict_long_edge_px=20 is less than .*=48"),
        ({"repeat_factor": 0}, "datamodule.repeat_factor=0: legal are null and a share"),
        ({"repeat_factor": 1.5}, "datamodule.repeat_factor=1.5: .* above 0 and at most 1"),
        ({"predict_scales": []}, r"datamodule.predict_scales=\[\]: at least one scale is legal"),
        ({"predict_scales": [[60, 50]]}, r"datamodule.predict_scales: \[60, 50\] given; legal is"),
        (
            {"predict_scales": [[40, 80], [31, 80]]},
            r"predict_scales: \[31, 80\] .* 32 <= SHORT <= L",
        ),
        ({"predict_scales": [1000, 1600]}, r"predict_scales: 1000 given; legal is \[SHORT,LONG\]"),
        ({"predict_scales": [[50, "80"]]}, r"predict_scales: \[50, '80'\] given; legal is"),
        ({"predict_scales": [[50, 60, 80]]}, r"predict_scales: \[50, 60, 80\] given; legal is"),
        ({"flip_probability": 1.5}, "datamodule.flip_probability=1.5: 0 to 1 is legal"),
        ({"batch_size": 0}, "datamodule.batch_size=0: 1 or more"),
        ({"predict_batch_size": -1}, "datamodule.predict_batch_size=-1: 1 or more"),
        ({"num_workers": -1}, "datamodule.num_workers=-1: 0 or more"),
        ({"prefetch_factor": 0}, "datamodule.prefetch_factor=0: 1 or more"),
        ({"seed": -1}, "datamodule.seed=-1: 0 or more"),
        ({"pixel_augmentations": {"a": 1}}, "pixel_augmentations.a: int may move pixels"),
    ],
)
def test_bad_values_are_refused_at_once(data: Data, changes, message):
    with pytest.raises(InputError, match=message):
        data.datamodule(**changes)


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        ("fit", {"train_annotations": None}, "datamodule.train_annotations=null"),
        ("fit", {"train_annotations": "none.csv"}, "none.csv"),
        ("fit", {"train_images": None}, "datamodule.train_images=null"),
        ("fit", {"train_images": "nowhere"}, "datamodule.train_images=nowhere: no such folder"),
        (
            "fit",
            {"batch_size": 13},
            r"datamodule.batch_size=13 on 1 device\(s\) takes 13 photos a step; .* has 12 training",
        ),
        ("fit", {"category_ids": [3]}, r"category_ids=\[3\]: .* of category 6"),
        ("fit", {"validation_images": 3}, "datamodule.validation_images=3, but .* made with 4"),
        ("predict", {"test_images": None}, "datamodule.test_images=null"),
        ("test", {"test_images": "nowhere"}, "datamodule.test_images=nowhere: no such folder"),
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
        ("ImageId\nt0.jpg\nno.jpg\n", r"s\.csv: image id 'no\.jpg' has no photo .*1 of 2 ids"),
        ("ImageId\n../t0.jpg\n", r"s\.csv: image id '\.\./t0\.jpg' has no photo"),
        ("Image\nt0.jpg\n", r"s\.csv: the column ImageId is missing, got \['Image'\]"),
        ("", r"s\.csv: the column ImageId is missing"),
        ("ImageId\n", r"s\.csv: holds no rows"),
    ],
)
def test_bad_sample_submission_is_named(data: Data, tmp_path, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        data.datamodule(sample_submission=str(tmp_path / "s.csv")).setup("test")


def test_prediction_goes_on_without_some_photos(data: Data, tmp_path):
    sample = tmp_path / "s.csv"
    sample.write_text("ImageId\nt0.jpg\nno.jpg\n")
    datamodule = data.datamodule(sample_submission=str(sample))
    datamodule.setup("predict")
    assert [*datamodule.photos_to_predict.image_ids] == ["t0.jpg", "no.jpg"]
    batches = list(datamodule.predict_dataloader())
    failures = {name: text for batch in batches for name, text in batch["failures"].items()}
    assert list(failures) == ["no.jpg"]
    assert "no.jpg: the image file is missing" in failures["no.jpg"]
    # an id with a folder in it would be another photo's file
    sample.write_text("ImageId\nt0.jpg\n../t1.jpg\n")
    with pytest.raises(InputError, match=r"image id '\.\./t1\.jpg' has no photo .*1 of 2 ids"):
        datamodule.setup("predict")


def test_missing_photos_are_named_and_counted(data: Data, tmp_path):
    (tmp_path / "c.jpg").touch()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d.jpg").touch()
    assert check_photos("images", tmp_path, ["c.jpg", "more/d.jpg"]) == tmp_path
    with pytest.raises(InputError, match=r"images=.*the image file a\.jpg is missing \(2 of 3 are"):
        check_photos("images", tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    check_photos("images", tmp_path, ["a.jpg", "b.jpg", "c.jpg"], some_suffice=True)
    with pytest.raises(InputError, match=r"the image file a\.jpg is missing \(2 of 2 are"):
        check_photos("images", tmp_path, ["a.jpg", "b.jpg"], some_suffice=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no photos \(\.jpeg, \.jpg, \.png\) in"):
        data.datamodule(test_images=str(tmp_path / "empty")).setup("test")


def test_split_of_another_file_is_refused(data: Data, tmp_path):
    path = tmp_path / "split.json"
    split = {"validation": ["x.jpg"], "train": ["0001.jpg"], "seed": 1, "annotations": "old.csv"}
    path.write_text(json.dumps(split))
    with pytest.raises(InputError, match=r"split\.json: image id 'x\.jpg' is not in .*train\.csv"):
        data.datamodule(split_file=str(path), validation_images=None, split_seed=None).setup("fit")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_photo_that_is_damaged_during_training_is_named(data: Data, tmp_path, num_workers):
    """Its end mark is there, so that no check before training finds it."""
    images = tmp_path / "train"
    shutil.copytree(data.directory / "train", images)
    recorder, datamodule = (
        Recorder(),
        data.datamodule(train_images=str(images), num_workers=num_workers),
    )
    datamodule.setup("fit")
    image_id = datamodule.split.train[3]
    (images / image_id).write_bytes((images / image_id).read_bytes()[:700])
    with pytest.raises(InputError, match=f"{image_id}: the picture is damaged") as caught:
        make_trainer(max_epochs=1).fit(recorder, datamodule=datamodule)
    message = one_line(caught.value)
    assert message.startswith(f"{images / image_id}: the picture is damaged or truncated (")
    assert "\n" not in message
