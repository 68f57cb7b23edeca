from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from mmdet.datasets.transforms import PackDetInputs
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.structures.mask import BitmapMasks
from torch.utils.data import DataLoader

from src.mmdet_bridge.cascade.detectors import Sample, collate, make_instances, make_sample


def example(size_hw: tuple[int, int] = (30, 41), objects: int = 2, seed: int = 0) -> Sample:
    generator = np.random.default_rng(seed)
    height, width = size_hw
    return make_sample(
        image=generator.integers(0, 256, (height, width, 3), dtype=np.uint8),
        image_id=f"{seed}.jpg",
        image_path=f"images/{seed}.jpg",
        original_hw=(height * 2, width * 4),
        flip=bool(seed % 2),
        instances=make_instances(
            labels=np.arange(objects, dtype=np.int64),
            boxes_xyxy=generator.random((objects, 4)).astype(np.float32),
            masks=generator.integers(0, 2, (objects, height, width), dtype=np.uint8),
        ),
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_same_as_mmdetection_packs(seed):
    sample = example(seed=seed)
    data_sample = sample["data_samples"]
    objects = data_sample.gt_instances
    packed = PackDetInputs()(
        {
            "img": sample["inputs"].permute(1, 2, 0).numpy(),
            "img_id": f"{seed}.jpg",
            "img_path": f"images/{seed}.jpg",
            "ori_shape": (60, 164),
            "img_shape": (30, 41),
            "scale_factor": (0.25, 0.5),
            "flip": bool(seed),
            "flip_direction": "horizontal" if seed else None,
            "gt_bboxes": objects.bboxes.numpy(),
            "gt_bboxes_labels": objects.labels.numpy(),
            "gt_masks": objects.masks,
        }
    )
    expected = packed["data_samples"]
    assert data_sample.metainfo == expected.metainfo
    torch.testing.assert_close(sample["inputs"], packed["inputs"], rtol=0, atol=0)
    assert sample["inputs"].is_contiguous()
    for key in ("bboxes", "labels"):
        found, wanted = objects[key], expected.gt_instances[key]
        assert found.dtype == wanted.dtype
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert isinstance(objects.masks, BitmapMasks)


def test_without_objects_there_is_no_ground_truth():
    sample = make_sample(
        image=np.zeros((4, 5, 3), dtype=np.uint8),
        image_id="a",
        image_path="a.jpg",
        original_hw=(8, 10),
    )
    assert "gt_instances" not in sample["data_samples"]
    assert sample["data_samples"].scale_factor == (0.5, 0.5)


def test_batch_keeps_order_and_sizes():
    batch = collate([example((10, 12), seed=0), example((9, 20), objects=0, seed=1)])
    assert [tuple(t.shape) for t in batch["inputs"]] == [(3, 10, 12), (3, 9, 20)]
    assert [s.img_id for s in batch["data_samples"]] == ["0.jpg", "1.jpg"]
    assert batch["data_samples"][1].gt_instances.bboxes.shape == (0, 4)
    assert batch["data_samples"][1].gt_instances.masks.masks.shape == (0, 9, 20)


def test_detector_preprocessor_takes_a_batch_moved_by_lightning():
    batch = move_data_to_device(collate([example((10, 12)), example((9, 20), objects=0)]), "cpu")
    preprocessor = DetDataPreprocessor(
        mean=[0, 0, 0], std=[1, 1, 1], pad_size_divisor=32, pad_mask=True
    )
    out = preprocessor(batch, training=True)
    assert out["inputs"].shape == (2, 3, 32, 32)
    for data_sample, objects in zip(out["data_samples"], (2, 0), strict=True):
        assert type(data_sample.gt_instances.bboxes) is torch.Tensor
        assert data_sample.gt_instances.masks.masks.shape == (objects, 32, 32)


def test_every_tensor_goes_to_the_device():
    moved = move_data_to_device(collate([example()]), torch.device("meta"))
    assert moved["inputs"][0].device.type == "meta"
    assert moved["data_samples"][0].gt_instances.bboxes.device.type == "meta"
    assert moved["data_samples"][0].gt_instances.labels.device.type == "meta"
    assert moved["data_samples"][0].img_id == "0.jpg"


class Examples(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        return example(seed=index)


def test_workers_hand_over_whole_samples():
    loader = DataLoader(Examples(), batch_size=2, num_workers=2, collate_fn=collate)
    for number, batch in enumerate(loader):
        for position in range(2):
            expected = example(seed=2 * number + position)
            found = batch["data_samples"][position]
            assert torch.equal(batch["inputs"][position], expected["inputs"])
            assert found.metainfo == expected["data_samples"].metainfo
            masks = found.gt_instances.masks
            np.testing.assert_array_equal(
                masks.masks, expected["data_samples"].gt_instances.masks.masks
            )
            assert (type(masks), masks.masks.dtype) == (BitmapMasks, np.uint8)


@pytest.mark.parametrize("shape", [(0, 5, 7), (3, 5, 7), (2, 8, 8)])
def test_masks_go_between_processes_as_bits(shape):
    masks = np.random.default_rng(0).integers(0, 2, shape, dtype=np.uint8)
    sent = ForkingPickler.dumps(BitmapMasks(masks, *shape[1:]))
    assert len(sent) < 500
    found = ForkingPickler.loads(sent)
    assert (found.height, found.width) == shape[1:]
    np.testing.assert_array_equal(found.masks, masks)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinning needs a GPU")
def test_pinned_batch_reaches_the_gpu():
    loader = DataLoader(Examples(), batch_size=2, collate_fn=collate, pin_memory=True)
    batch = next(iter(loader))
    assert batch["inputs"][0].is_pinned()
    moved = move_data_to_device(batch, torch.device("cuda"))
    assert moved["data_samples"][0].gt_instances.bboxes.is_cuda
