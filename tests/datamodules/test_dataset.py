from __future__ import annotations

import json
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from src.datamodules.dataset import ImageDataset
from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import Sample
from tests.helpers.datasets import CATEGORY_IDS, competition, training_dataset
from tests.helpers.images import COLOURS, Data, DrawnImage, save_image, write_rows
from tests.helpers.masks import resize_by_nearest


def pixels(sample: Sample) -> np.ndarray:
    return sample["inputs"].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("number", range(16))
def test_every_image_is_right_through_rotation_gray_and_transposed_rows(data: Data, number):
    """Against the image as it was drawn: pixels but for JPEG's loss and its decoding at half the
    size (a turned or mirrored image is 15 gray levels away), masks exactly.
    """
    sample = training_dataset(data.directory)[0, number]
    data_sample = sample["data_samples"]
    image = data.images[data_sample.img_id]
    height, width = data_sample.img_shape
    expected = image.image
    if number == 4:  # saved as grayscale
        expected = np.asarray(Image.fromarray(expected).convert("L").convert("RGB"))
    expected = cv2.resize(expected, (width, height))
    masks = [resize_by_nearest(mask, (height, width)) for _, mask in image.objects]
    if data_sample.flip:
        expected = expected[:, ::-1]
        masks = [mask[:, ::-1] for mask in masks]
    assert sample["inputs"].shape == (3, height, width)
    assert 40 <= min(height, width) <= 60
    assert max(height, width) <= 100
    assert np.abs(pixels(sample).astype(int) - expected).mean() < 4
    objects = data_sample.gt_instances
    np.testing.assert_array_equal(objects.masks.masks, np.array(masks, dtype=np.uint8))
    assert [CATEGORY_IDS[label] for label in objects.labels] == [c for c, _ in image.objects]
    for mask, box in zip(objects.masks.masks, objects.bboxes.tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert data_sample.ori_shape == image.image.shape[:2]
    assert data_sample.scale_factor == (
        width / image.image.shape[1],
        height / image.image.shape[0],
    )
    assert data_sample.img_path == str(data.directory / "train" / image.image_id)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_masks_lie_on_their_objects(data: Data, number):
    """The colour under a mask is that of its class: pixels and masks went the same way."""
    for epoch in range(4):
        sample = training_dataset(data.directory)[epoch, number]
        objects = sample["data_samples"].gt_instances
        for label, mask in zip(objects.labels.tolist(), objects.masks.masks, strict=True):
            inner = cv2.erode(np.pad(mask, 1), np.ones((3, 3), np.uint8))[1:-1, 1:-1].astype(bool)
            colour = pixels(sample)[inner].astype(int)
            assert np.abs(colour - COLOURS[CATEGORY_IDS[label]]).mean() < 12


def test_flipped_sample_is_the_mirror_image(data: Data):
    same_size = {"short_edge_px": (50, 50), "seed": 3, "pixel_augmentation": competition()}
    plain = training_dataset(data.directory, flip_probability=0.0, **same_size)
    flipped = training_dataset(data.directory, flip_probability=1.0, **same_size)
    for index in range(len(plain)):
        one, other = plain[0, index], flipped[0, index]
        np.testing.assert_array_equal(pixels(one)[:, ::-1], pixels(other))
        a, b = one["data_samples"].gt_instances, other["data_samples"].gt_instances
        np.testing.assert_array_equal(a.masks.masks[:, :, ::-1], b.masks.masks)
        width = pixels(one).shape[1]
        x_min, y_min, x_max, y_max = a.bboxes.numpy().T
        mirrored = np.stack([width - x_max, y_min, width - x_min, y_max], axis=1)
        np.testing.assert_array_equal(mirrored, b.bboxes.numpy())
        assert other["data_samples"].flip_direction == "horizontal"


def test_mirrored_image_gives_mirrored_sample(tmp_path):
    """An image and its mirrored twin, one of them mirrored again by augmentation: the same to the
    last pixel where neither JPEG nor resizing comes between (test_transforms.py: other sizes).
    """
    mask = np.zeros((64, 48), dtype=bool)
    mask[5:40, 10:21] = True
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    (tmp_path / "train").mkdir()
    images = [DrawnImage("a.png", image, [(3, mask)])]
    images.append(DrawnImage("b.png", image[:, ::-1], [(3, mask[:, ::-1])]))
    for drawn in images:
        save_image(drawn, tmp_path / "train" / drawn.image_id)
    write_rows(images, tmp_path / "train.csv")
    plain = training_dataset(tmp_path, short_edge_px=(48, 48), flip_probability=0.0)
    flipped = training_dataset(tmp_path, short_edge_px=(48, 48), flip_probability=1.0)
    one, other = plain[0, 0], flipped[0, 1]
    np.testing.assert_array_equal(pixels(one), image)
    np.testing.assert_array_equal(pixels(one), pixels(other))
    a, b = one["data_samples"].gt_instances, other["data_samples"].gt_instances
    np.testing.assert_array_equal(a.masks.masks, b.masks.masks)
    np.testing.assert_array_equal(a.bboxes, b.bboxes)


def test_exif_twin_is_the_same_sample(tmp_path):
    mask = np.zeros((70, 50), dtype=bool)
    mask[5:40, 10:21] = True
    image = np.full((70, 50, 3), 120, dtype=np.uint8)
    image[mask] = COLOURS[6]
    (tmp_path / "train").mkdir()
    images = [DrawnImage(f"{number}.jpg", image, [(6, mask)]) for number in range(4)]
    for image, orientation in zip(images, (1, 3, 6, 8), strict=True):
        save_image(image, tmp_path / "train" / image.image_id, orientation=orientation)
    write_rows(images, tmp_path / "train.csv", transposed=("2.jpg",))
    dataset = training_dataset(tmp_path, short_edge_px=(45, 45), flip_probability=0.0)
    images = ImageDataset(
        images_directory=tmp_path / "train",
        image_ids=[image.image_id for image in images],
        file_names=[image.image_id for image in images],
        short_edge_px=45,
        long_edge_px=100,
    )
    upright = dataset[0, 0]
    for index in range(4):
        sample = dataset[0, index]
        np.testing.assert_array_equal(pixels(images[index]), pixels(sample))
        assert images[index]["data_samples"].ori_shape == (70, 50)
        assert np.abs(pixels(sample).astype(int) - pixels(upright)).mean() < 1
        np.testing.assert_array_equal(
            sample["data_samples"].gt_instances.masks.masks,
            upright["data_samples"].gt_instances.masks.masks,
        )


def test_sample_depends_on_seed_epoch_and_index_alone(data: Data):
    def describe(sample: Sample) -> tuple:
        return sample["inputs"].shape, sample["inputs"].numpy().tobytes()

    dataset = training_dataset(data.directory)
    expected = {
        (epoch, index): describe(dataset[epoch, index]) for epoch in (0, 1) for index in range(16)
    }
    again = pickle.loads(pickle.dumps(training_dataset(data.directory)))
    for key in sorted(expected, reverse=True):
        assert describe(again[key]) == expected[key]
    assert sum(expected[0, i] != expected[1, i] for i in range(16)) >= 14
    other_seed = training_dataset(data.directory, seed=2)
    assert sum(describe(other_seed[0, i]) != expected[0, i] for i in range(16)) >= 14


def test_same_image_at_different_positions_is_drawn_differently(data: Data):
    dataset = training_dataset(data.directory, indices=np.zeros(60, dtype=np.int64))
    samples = [dataset[0, index]["data_samples"] for index in range(60)]
    assert len({min(sample.img_shape) for sample in samples}) > 15
    assert 15 < sum(sample.flip for sample in samples) < 45


def test_repeated_image_is_drawn_anew(data: Data):
    dataset = training_dataset(data.directory)
    views = {
        (sample["data_samples"].img_shape, sample["data_samples"].flip)
        for sample in (dataset[0, 5, repetition] for repetition in range(8))
    }
    assert len(views) > 4
    for key in ((0, 5, 0), (0, 5), 5):
        np.testing.assert_array_equal(pixels(dataset[key]), pixels(dataset[0, 5]))


def test_dataset_pickles_small_and_shares_the_store(data: Data):
    dataset = training_dataset(data.directory)
    large = training_dataset(data.directory, indices=np.zeros(10_016, dtype=np.int64))
    assert len(pickle.dumps(dataset)) < 10_000
    assert len(pickle.dumps(large)) - len(pickle.dumps(dataset)) < 10_000 * 8 + 100
    first, copy = dataset.store.instances(3), pickle.loads(pickle.dumps(dataset)).store.instances(3)
    assert not first.boxes_xyxy.flags.owndata
    assert not copy.boxes_xyxy.flags.owndata


def test_objects_without_a_pixel_left_and_crowds_are_dropped(tmp_path):
    (tmp_path / "train").mkdir()
    save_image(
        DrawnImage("a.jpg", np.full((100, 100, 3), 99, np.uint8)), tmp_path / "train" / "a.jpg"
    )
    square = [10, 10, 60, 10, 60, 60, 10, 60]
    speck = {"size": [100, 100], "counts": [101, 1, 100 * 100 - 102]}  # row 1, column 1
    annotations = [
        {"segmentation": speck, "iscrowd": 0},
        {"segmentation": [square], "iscrowd": 0},
        {"segmentation": {"size": [100, 100], "counts": [0, 10_000]}, "iscrowd": 1},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 100, "width": 100}],
        "categories": [{"id": 3, "name": "thing", "supercategory": "things"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 3, "area": 1, "bbox": [0, 0, 1, 1], **a}
            for n, a in enumerate(annotations)
        ],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    dataset = training_dataset(tmp_path, annotations=path, short_edge_px=(40, 40))
    objects = dataset[0, 0]["data_samples"].gt_instances
    assert len(objects.labels) == 1
    assert objects.masks.masks.shape == (1, 40, 40)
    assert objects.masks.masks[0].sum() == 20 * 20
    content["annotations"] = content["annotations"][:1]
    path.write_text(json.dumps(content))
    dataset = training_dataset(tmp_path, annotations=path, short_edge_px=(40, 40))
    objects = dataset[0, 0]["data_samples"].gt_instances
    assert objects.bboxes.shape == (0, 4)
    assert objects.masks.masks.shape == (0, 40, 40)


def test_category_without_a_label_is_refused(data: Data):
    with pytest.raises(InputError, match=r"category_ids must hold .* 23, too, got \[3, 6\]"):
        training_dataset(data.directory, category_ids=[3, 6])
    without_it = training_dataset(
        data.directory, category_ids=[3, 6], indices=np.array([], dtype=np.int64)
    )
    assert len(without_it) == 0


def test_damaged_image_is_named(data: Data, tmp_path):
    image = (data.directory / "train" / "0005.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(image[: len(image) // 2])
    dataset = ImageDataset(
        images_directory=tmp_path,
        image_ids=["cut.jpg"],
        file_names=["cut.jpg"],
        short_edge_px=40,
        long_edge_px=50,
    )
    with pytest.raises(InputError, match=r"cut\.jpg: .*truncated"):
        dataset[0]
