"""Images at several scales for prediction; images that fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.datamodules.dataset import ImageDataset, ImageViewsDataset
from src.datamodules.image_lists import positions_left
from src.errors import InputError
from tests.helpers.images import Data

SCALES = [(40, 70), (64, 100), (96, 160)]


def image_dataset(
    directory: Path, names: list[str], scale: tuple[int, int] = (1, 1)
) -> ImageDataset:
    return ImageDataset(
        images_directory=directory,
        image_ids=names,
        file_names=names,
        short_edge_px=scale[0],
        long_edge_px=scale[1],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name, (height, width) in {"a": (300, 220), "b": (120, 150), "thin": (20, 400)}.items():
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg")
    return tmp_path


def test_each_view_is_the_image_at_that_scale_alone(folder: Path) -> None:
    names = ["a.jpg", "b.jpg"]
    views = ImageViewsDataset(image_dataset(folder, names), scales=SCALES)
    assert len(views) == 2
    for index in range(2):
        image = views[index]
        assert (image["image_id"], image["failure"]) == (names[index], None)
        for view, scale in zip(image["views"], SCALES, strict=True):
            alone = image_dataset(folder, names, scale)[index]
            assert torch.equal(view["inputs"], alone["inputs"])
            assert view["data_samples"].metainfo == alone["data_samples"].metainfo
    batch = views.collate([views[0], views[1]])
    assert batch["failures"] == {}
    assert [[s.img_id for s in view["data_samples"]] for view in batch["views"]] == [names] * 3
    shapes = [[image.shape[1:] for image in view["inputs"]] for view in batch["views"]]
    assert shapes[0] == [(55, 40), (40, 50)]
    assert shapes[2] == [(131, 96), (96, 120)]


def test_images_that_fail_say_why_and_leave_the_others(folder: Path) -> None:
    names = ["a.jpg", "thin.jpg", "gone.jpg", "cut.jpg", "b.jpg"]
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:2000])
    views = ImageViewsDataset(image_dataset(folder, names), scales=SCALES)
    batch = views.collate([views[index] for index in range(5)])
    assert [[s.img_id for s in v["data_samples"]] for v in batch["views"]] == [
        ["a.jpg", "b.jpg"]
    ] * 3
    failures = batch["failures"]
    assert list(failures) == ["thin.jpg", "gone.jpg", "cut.jpg"]
    assert failures["thin.jpg"] == (
        f"{folder}/thin.jpg: an image of 20x400 px becomes a view of 4x70 px at the scale "
        "(40, 70); each edge of a view has 32 px or more"
    )
    assert failures["gone.jpg"] == f"{folder}/gone.jpg: the image file is missing"
    assert failures["cut.jpg"].startswith(f"{folder}/cut.jpg: the image is damaged or truncated")
    assert views.collate([views[2]]) == {
        "views": [],
        "failures": {"gone.jpg": failures["gone.jpg"]},
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_hands_over_views_and_failures(data: Data, workers: int) -> None:
    datamodule = data.datamodule(
        predict_scales=SCALES, predict_batch_size=2, num_workers=workers, persistent_workers=False
    )
    datamodule.setup("predict")
    datamodule.test_dataset.file_names = ("t0.jpg", "gone.jpg", "t2.jpg")
    first, second = datamodule.predict_dataloader()
    for view in first["views"]:
        assert [sample.img_id for sample in view["data_samples"]] == ["t0.jpg", "t2.jpg"]
    assert second["views"] == []  # what cannot be read comes last, where batches are by size
    assert list(second["failures"]) == ["t1.jpg"]
    assert "gone.jpg: the image file is missing" in second["failures"]["t1.jpg"]


def test_what_is_left_of_the_images() -> None:
    ids = ("a", "b", "c", "d", "e")
    assert positions_left(ids, (), 1) == [0, 1, 2, 3, 4]
    assert positions_left(ids, {"a", "d"}, 2) == [1, 2, 4]
    assert positions_left(ids, {*ids}, 8) == []
    # Lightning wants one for each process
    assert positions_left(ids, {"a", "c", "e"}, 5) == [1, 3, 1, 3, 1]
    with pytest.raises(InputError, match=r"2 images are in the .* none of the 5 .* is 'x'"):
        positions_left(ids, {"a", "y", "x"}, 1)
