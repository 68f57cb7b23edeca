from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.cli.entry_point import one_line
from src.datamodules.dataset import ImageDataset, by_predicted_size
from src.datamodules.split import Split, read_split, write_split
from src.errors import InputError
from tests.helpers.images import Data, DrawnImage, draw_image, save_image, write_rows
from tests.helpers.trainers import Recorder, make_trainer


def ids(recorder: Recorder, stage: str) -> list[str]:
    return [sample.img_id for _, sample in recorder.seen[stage]]


def test_fit_makes_the_split_and_trains_and_validates_by_it(data: Data, tmp_path):
    split_file = tmp_path / "made" / "split.json"
    recorder = Recorder()
    datamodule = data.datamodule(split_file=str(split_file), num_workers=1)
    make_trainer(max_epochs=2).fit(recorder, datamodule=datamodule)
    split = read_split(split_file)
    assert len(split.validation) == 4
    assert set(split.validation) | set(split.train) == set(data.images)
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
        "annotations": str(source),
        "cache_dir": str(tmp_path / "cache"),
        "on_bad_rows": "skip",
    }
    with caplog.at_level(logging.INFO):
        data.datamodule(**options).setup("fit")
    height, width = data.images["0002.jpg"].image.shape[:2]
    assert (
        f"0002.jpg: annotated as {width} x {height} px (height x width), the image has "
        f"{height} x {width}: exchanged, repaired" in caplog.text
    )
    assert "1 bad rows left out, see " in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        data.datamodule(**options).setup("fit")
    assert caplog.text == ""


def test_predict_takes_every_image_of_its_split_once(data: Data):
    recorder = Recorder()
    datamodule = data.datamodule(predict_batch_size=2)
    make_trainer().predict(recorder, datamodule=datamodule, return_predictions=False)
    assert ids(recorder, "predict") == ["t0.jpg", "t1.jpg", "t2.jpg"]
    assert [s.ori_shape for _, s in recorder.seen["predict"]] == [(70, 90), (71, 90), (72, 90)]
    recorder = Recorder()
    datamodule = data.datamodule(predict_split="validation", predict_batch_size=3)
    make_trainer().predict(recorder, datamodule=datamodule, return_predictions=False)
    assert sorted(ids(recorder, "predict")) == sorted(datamodule.split.validation)
    recorder = Recorder()
    make_trainer().test(recorder, datamodule=data.datamodule(), verbose=False)
    assert ids(recorder, "test") == ["t0.jpg", "t1.jpg", "t2.jpg"]


def test_images_too_narrow_to_train_on_are_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At 12 x 1000 px the longer edge's limit leaves views of 4 px, in which no anchor lies."""
    generator = np.random.default_rng(0)
    sizes = {"a.jpg": (90, 70), "b.jpg": (70, 90), "c.jpg": (80, 80), "d.jpg": (60, 60)}
    images = [draw_image(name, size, generator) for name, size in sizes.items()]
    mask = np.ones((12, 1000), dtype=bool)
    narrow = np.full((12, 1000, 3), 90, dtype=np.uint8)
    images.append(DrawnImage("narrow.jpg", narrow, [(3, mask)]))
    (tmp_path / "train").mkdir()
    for image in images:
        save_image(image, tmp_path / "train" / image.image_id)
    write_rows(images, tmp_path / "train.csv")
    split = Split(
        validation=("d.jpg",),
        train=("a.jpg", "b.jpg", "c.jpg", "narrow.jpg"),
        seed=777,
        annotations="train.csv",
    )
    write_split(split, tmp_path / "split.json")
    datamodule = Data(tmp_path, {}).datamodule(num_validation_images=None, test_images=None)
    with caplog.at_level(logging.WARNING):
        datamodule.setup("fit")
    assert len(datamodule.train_dataset) == 3
    assert (
        "1 training image(s) left out: a view of them has an edge below 32 px at "
        "datamodule.train_short_edge_px=40, train_long_edge_px=100: narrow.jpg (12x1000 px)"
    ) in caplog.text


def test_batches_of_several_are_of_one_padded_size(tmp_path: Path) -> None:
    sizes_hw = [(60, 90), (90, 60), (61, 90), (100, 40), (90, 61), (60, 60)]
    for number, (height, width) in enumerate(sizes_hw):
        Image.new("RGB", (width, height)).save(tmp_path / f"{number}.jpg")
    (tmp_path / "6.jpg").write_bytes(b"no image")
    images = ImageDataset(
        images_directory=tmp_path,
        image_ids=[str(number) for number in range(7)],
        file_names=[f"{number}.jpg" for number in range(7)],
        short_edge_px=64,
        long_edge_px=96,
    )
    assert list(by_predicted_size(images).image_ids) == ["1", "3", "4", "0", "2", "5", "6"]


def test_test_images_need_no_annotations(data: Data, tmp_path):
    recorder = Recorder()
    datamodule = data.datamodule(
        annotations=None,
        images=None,
        split_file=str(tmp_path / "none.json"),
        cache_dir=str(tmp_path / "cache"),
    )
    make_trainer().predict(recorder, datamodule=datamodule, return_predictions=False)
    assert len(recorder.seen["predict"]) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spelling", ["t{}.jpg", "t{}"])
def test_sample_submission_says_which_images_and_in_which_order(data: Data, tmp_path, spelling):
    path = tmp_path / "sample_submission.csv"
    rows = [f"{spelling.format(number)},1 1,23" for number in (2, 0, 2)]
    path.write_text("\n".join(["ImageId,EncodedPixels,ClassId", *rows]) + "\n")
    datamodule = data.datamodule(sample_submission=str(path))
    datamodule.setup("predict")
    batches = [view for batch in datamodule.predict_dataloader() for view in batch["views"]]
    samples = [sample for batch in batches for sample in batch["data_samples"]]
    assert [s.img_id for s in samples] == [spelling.format(2), spelling.format(0)]
    assert [s.ori_shape for s in samples] == [(72, 90), (70, 90)]


def test_images_without_objects_are_validated_but_not_trained_on(data: Data, tmp_path, caplog):
    """COCO JSON of 16 images of which 9 have an object."""
    content = {
        "images": [
            {"id": n, "file_name": p.image_id, "height": len(p.image), "width": len(p.image[0])}
            for n, p in enumerate(data.images.values())
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
        annotations=str(path), split_file=str(tmp_path / "split.json"), num_validation_images=5
    )
    with caplog.at_level(logging.INFO):
        datamodule.setup("fit")
    store, indices = datamodule.store, datamodule.train_dataset.indices
    assert len(datamodule.validation_dataset) == 5
    assert all(len(store.instances(index)) == 1 for index in indices)
    empty = [i for i in datamodule.split.train if not len(store.instances(store.index_of(i)))]
    assert len(empty) > 0
    assert len(indices) + len(empty) == 11
    assert (
        f"left out of training: {len(empty)} images that keep no instance (the first: "
        in caplog.text
    )


@pytest.mark.parametrize("num_workers", [0, 1])
def test_image_that_is_damaged_during_training_is_named(data: Data, tmp_path, num_workers):
    """Its end mark is there, so that no check before training finds it."""
    images = tmp_path / "train"
    shutil.copytree(data.directory / "train", images)
    recorder, datamodule = (
        Recorder(),
        data.datamodule(images=str(images), num_workers=num_workers),
    )
    datamodule.setup("fit")
    image_id = datamodule.split.train[3]
    (images / image_id).write_bytes((images / image_id).read_bytes()[:700])
    with pytest.raises(InputError, match=f"{image_id}: the image is damaged") as caught:
        make_trainer(max_epochs=1).fit(recorder, datamodule=datamodule)
    message = one_line(caught.value)
    assert message.startswith(f"{images / image_id}: the image is damaged or truncated (")
    assert "\n" not in message
