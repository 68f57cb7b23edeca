"""Detectors, and the batches that they take.

Building, compatibility checks, preprocessing, loading weights; mmdetection's data types made from
plain arrays.
"""

from __future__ import annotations

import copy
import difflib
import importlib.util
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeAlias, TypedDict

import cv2
import mmdet.models  # noqa: F401  fills the registry
import numpy as np
import numpy.typing as npt
import torch
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack, RoIAlign
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from omegaconf import OmegaConf
from torch import Tensor

from src.errors import InputError
from src.io import printable
from src.mmdet_bridge.cascade.cpu_training import is_trained_on_cpu, make_fast_on_cpu
from src.mmdet_bridge.checkpoints.untrusted_config import find_reader, nodes
from src.mmdet_bridge.checkpoints.weight_files import misfits, unwrap
from src.mmdet_bridge.kernels.roi_align_cpu import pool_rois
from src.mmdet_bridge.options import ViewChange

log = logging.getLogger(__name__)

SHARED_SIZES_KEY = "sizes"

Detector = Any
"""A detector of mmdet's (a ``torch.nn.Module``); mmdet has no types for a checker."""


def build_detector(config: Mapping[str, Any], *, init_weights: bool = True) -> Detector:
    """Build mmdet's detector from its configuration.

    Args:
        config: mmdet's model configuration, plain or an OmegaConf node (attached, so that
            interpolations resolve). Its key ``sizes``, numbers that other values refer to, is
            ours and is left out.
        init_weights: Whether to draw the weights as mmdet's classes ask (``init_cfg``). Torch's
            defaults suffice, and are faster, where a checkpoint is loaded afterwards.

    Returns:
        The detector in training mode, on the CPU.

    Raises:
        InputError: A type that mmdet's registry lacks, a key that its class does not take, a
            missing one, or a key that fetches or reads a file (``pretrained``, ``checkpoint``).
    """
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    model = copy.deepcopy(dict(plain))  # type: ignore[arg-type]
    model.pop(SHARED_SIZES_KEY, None)
    if "backbone" not in model:
        raise InputError(
            "detector.backbone must be given, got none: +module/backbone=resnet50 adds one to "
            "module=htc_heads"
        )
    if found := find_reader(model):  # mmdet would unpickle the file
        raise InputError(
            f"{_dotted(found[0])} must be absent or null, got {printable(found[1])!r}: models read "
            "and download no files; fetch the weights yourself, then: python -m src.import_weights "
            "source=FILE output=start.safetensors, and train with initial_weights=start.safetensors"
        )
    if importlib.util.find_spec("mmpretrain") is None:
        for path, value in nodes(model):
            if path[-1:] == ("type",) and str(value).startswith("mmpretrain."):
                raise InputError(
                    f"{_dotted(path)}={printable(value)} needs the package onedl-mmpretrain, "
                    "which is not installed: make mmpretrain"
                )
    # Parts of mmengine look types up in the process's default scope, which may be another's.
    with DefaultScope.overwrite_default_scope("mmdet"):
        try:
            detector = MODELS.build(ConfigDict(model))
        except Exception as error:  # mmdet's constructors raise anything
            raise _explained(error, model) from error
        if init_weights:
            with _only_errors():
                detector.init_weights()
            # mmdet draws the offsets like any convolution; they start at zero (Dai et al., 2017).
            for layer in detector.modules():
                if isinstance(layer, DeformConv2dPack | ModulatedDeformConv2dPack):
                    layer.init_offset()
    # MobileNetV2 ends in a convolution for the classifier. A parameter that trains and gets no
    # gradient would stop training on several devices.
    backbone: Any = getattr(detector, "backbone", None)
    if type(backbone).__name__ == "MobileNetV2" and backbone.layers[-1] == "conv2":
        backbone.conv2.requires_grad_(len(backbone.layers) - 1 in backbone.out_indices)
    make_fast_on_cpu(detector)
    # `norm_eval` acts when the mode is set, and Lightning leaves the mode as it finds it.
    return detector.train()


@contextmanager
def _only_errors() -> Iterator[None]:
    """Silence mmengine's line for each parameter that it initialises.

    And Swin's warning that its weights are not pretrained: they are loaded later, or training says
    that they are random.
    """
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _explained(error: Exception, model: Mapping[str, Any]) -> InputError:
    """Return an error that names the key of the configuration that mmdet complains about."""
    text = str(error.args[0]) if error.args else str(error)
    if unknown := re.match(r"([\w.]+) is not in the", text):
        name = unknown[1]
        keys = " and ".join(_dotted(path) for path, value in nodes(model) if value == name)
        known = sorted({*MODELS.module_dict, *TASK_UTILS.module_dict})
        near = difflib.get_close_matches(name, known, n=3)
        hint = f" Near it: {', '.join(near)}." if near else ""
        return InputError(
            f"{keys or 'detector'} must be a class of mmdet's registry, got '{name}'.{hint}"
        )
    if found := re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", text):
        keys = " and ".join(_dotted(path) for path, _ in nodes(model) if path[-1:] == (found[2],))
        return InputError(
            f"{keys or 'detector'}: mmdet's {found[1]} takes no argument '{found[2]}'"
        )
    return InputError(f"detector: mmdet cannot build this configuration: {text}")


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(("detector", *path))


@MODELS.register_module()
class Float32RoIExtractor(SingleRoIExtractor):  # type: ignore[misc]
    """``SingleRoIExtractor`` computed in float32, whatever the features' dtype.

    mmdet rounds boxes to that dtype: between 1024 and 2048 px a coordinate is then a multiple of
    8 px in bfloat16, of 1 px in float16. On smooth bfloat16 features of an image of 1216x1920, 19%
    of the pooled values were wrong, 0.2% this way. Equal to mmdet's on float32 features.
    """

    def forward(
        self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        """Pool each box from the level of its size.

        Args:
            feats: One (N, C, H, W) a level.
            rois: (K, 5) float32: view's index, xyxy in its pixels.
            roi_scale_factor: Stretches the boxes, if given.

        Returns:
            (K, C, bins, bins), of the features' dtype.
        """
        levels = tuple(level.float() for level in feats)
        pooled: Tensor
        if is_trained_on_cpu(levels) and (roi_levels := self._poolable(rois, levels)) is not None:
            if roi_scale_factor is not None:
                rois = self.roi_rescale(rois, roi_scale_factor)
            layer = self.roi_layers[0]
            pooled = pool_rois(
                levels,
                rois.float(),
                roi_levels,
                spatial_scales=[layer.spatial_scale for layer in self.roi_layers],
                output_hw=layer.output_size,
                sampling_ratio=layer.sampling_ratio,
                aligned=layer.aligned,
            )
        else:
            pooled = super().forward(levels, rois, roi_scale_factor)
        return pooled.to(feats[0].dtype)

    def _poolable(self, rois: Tensor, levels: tuple[Tensor, ...]) -> Tensor | None:
        """Return the RoIs' levels; None where ``pool_rois`` is not written for the case."""
        if not len(rois) or len(levels) < 2 or not rois.isfinite().all():
            return None
        if any(
            type(layer) is not RoIAlign or layer.pool_mode != "avg" for layer in self.roi_layers
        ):
            return None
        roi_levels: Tensor = self.map_roi_levels(rois, len(levels))
        return roi_levels if int(roi_levels.min()) >= 0 else None  # an inverted box has none


def preprocess(detector: Detector, batch: Mapping[str, Any], *, training: bool) -> dict[str, Any]:
    """Move a batch to the detector's device, normalise and pad it by the detector's preprocessor.

    Args:
        detector: The detector.
        batch: A ``Batch`` of N images.
        training: Whether masks are padded, too.

    Returns:
        ``inputs``: float32 (N, 3, H, W); ``data_samples``: N DetDataSample with the padded size.
    """
    preprocessor = detector.data_preprocessor
    # mmengine's preprocessor keeps a device of its own, which moving the module does not reach.
    preprocessor.to(next(detector.parameters()).device)
    data: dict[str, Any] = preprocessor(dict(batch), training)
    return data


def check_detector(detector: Detector) -> None:
    """Refuse a detector that ``predict_candidates`` is not written for."""
    head: Any = getattr(detector, "roi_head", None)
    if type(head).__name__ != "HybridTaskCascadeRoIHead":
        raise InputError(
            f"detector.roi_head.type must be HybridTaskCascadeRoIHead, got {type(head).__name__}"
        )
    if head.with_semantic:
        raise InputError("detector.roi_head.semantic_head must be absent: this cascade has none")
    for stage, box_head in enumerate(head.bbox_head):
        if not box_head.reg_class_agnostic:
            raise InputError(
                f"detector.roi_head.bbox_head.{stage}.reg_class_agnostic must be true, got false: "
                "the classes of a proposal share one box"
            )


def mask_edge_px(detector: Detector) -> int:
    """Return the edge of the masks that a detector's heads predict, in cells."""
    head = detector.roi_head
    pooled: int = head.mask_roi_extractor[-1].roi_layers[0].output_size[0]
    return pooled * int(head.mask_head[-1].scale_factor)


def check_ensemble(detectors: Sequence[Detector], names: Sequence[str]) -> None:
    """Refuse detectors whose results cannot be averaged with those of the first.

    Args:
        detectors: Accepted by ``check_detector``.
        names: Their names in a message.
    """
    shared = _shared_values(detectors[0])
    for detector, name in zip(detectors, names, strict=True):
        for what, own in _shared_values(detector).items():
            if own != shared[what]:
                raise InputError(
                    f"{name}: {what} must be {shared[what]} as in {names[0]}, the models of an "
                    f"ensemble having the same, got {own}"
                )


def _shared_values(detector: Detector) -> dict[str, object]:
    rule = detector.test_cfg.rpn
    return {
        "the number of classes": detector.roi_head.bbox_head[-1].num_classes,
        "test_cfg.rpn.nms.iou_threshold": rule.nms.iou_threshold,
        "test_cfg.rpn.max_per_img": rule.max_per_img,
        "the edge of a predicted mask": mask_edge_px(detector),
    }


def load_weights(detector: Detector, weights: Mapping[str, Tensor]) -> None:
    """Load all weights of a detector: parameters and buffers by mmdet's or Lightning's names.

    Raises:
        InputError: The weights are another model's; lists the names that are missing, unknown or of
            another shape.
    """
    unwrapped = unwrap(weights)
    if notice := unwrapped.notice():
        log.info("weights: %s", notice)
    given = {name: value for name, (_, value) in unwrapped.plain.items()}
    own = detector.state_dict()
    kinds = {
        "missing": [name for name in own if name not in given],
        "unknown": [name for name in given if name not in own],
        "of another shape": [
            f"{name} {tuple(given[name].shape)} for {tuple(value.shape)}"
            for name, value in own.items()
            if name in given and given[name].shape != value.shape
        ],
    }
    if found := misfits(kinds):
        raise InputError(
            f"the weights do not fit the model: {found}; "
            "give the experiment or module= that they were trained with"
        )
    detector.load_state_dict(given)


Instances: TypeAlias = InstanceData
"""N instances: bboxes (N, 4) float32, labels (N,) int64, masks BitmapMasks (N, H, W)."""


class Sample(TypedDict):
    """One image for the detector."""

    inputs: torch.Tensor  # (3, H, W), uint8, RGB
    data_samples: DetDataSample


class Batch(TypedDict):
    """B images of any sizes; the detector's preprocessor pads and stacks them."""

    inputs: list[torch.Tensor]  # B tensors (3, H_i, W_i), uint8, RGB
    data_samples: list[DetDataSample]


def make_sample(
    *,
    image: npt.NDArray[np.uint8],
    image_id: str,
    image_path: str,
    original_hw: tuple[int, int],
    flip: bool = False,
    instances: Instances | None = None,
) -> Sample:
    """Pack an image, in training with its instances, as mmdetection's ``PackDetInputs`` does.

    Args:
        image: (H, W, 3) uint8, RGB, C-contiguous: resized, and flipped if ``flip``.
        image_id: The image's id.
        image_path: The file of the image.
        original_hw: Height and width of the image before resizing, EXIF rotation applied.
        flip: Whether the image is flipped left to right.
        instances: From ``make_instances``, in training.
    """
    height, width = image.shape[:2]
    data_sample = DetDataSample(
        metainfo={
            "img_id": image_id,
            "img_path": image_path,
            "ori_shape": original_hw,
            "img_shape": (height, width),
            "scale_factor": (width / original_hw[1], height / original_hw[0]),
            "flip": flip,
            "flip_direction": "horizontal" if flip else None,
        }
    )
    if instances is not None:
        data_sample.gt_instances = instances
    pixels = np.stack(cv2.split(image))  # as permute(2, 0, 1), in half the time
    return {"inputs": torch.from_numpy(pixels), "data_samples": data_sample}


def make_instances(
    *,
    labels: npt.NDArray[np.int64],
    boxes_xyxy: npt.NDArray[np.float32],
    masks: npt.NDArray[np.uint8],
) -> Instances:
    """Pack N instances, N = 0 included.

    Boxes are a plain tensor: the detector's preprocessor turns mmdetection's box types into one.

    Args:
        labels: (N,) int64: positions in the list of category ids.
        boxes_xyxy: (N, 4) float32: pixels of the resized image, half-open.
        masks: (N, H, W) uint8, 0 or 1, on the grid of the resized image.
    """
    instances = InstanceData()
    instances.bboxes = torch.from_numpy(boxes_xyxy)
    instances.labels = torch.from_numpy(labels)
    instances.masks = BitmapMasks(masks, *masks.shape[1:])
    return instances


def _pack_masks(masks: BitmapMasks) -> tuple[Any, ...]:
    """Pickle masks as bits: an eighth of the bytes between processes."""
    return _unpack_masks, (np.packbits(masks.masks), masks.masks.shape)


def _unpack_masks(bits: npt.NDArray[np.uint8], shape: tuple[int, int, int]) -> BitmapMasks:
    masks = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)
    return BitmapMasks(masks, *shape[1:])


ForkingPickler.register(BitmapMasks, _pack_masks)


def collate(samples: Sequence[Sample]) -> Batch:
    """Batch samples, in their order."""
    return {
        "inputs": [sample["inputs"] for sample in samples],
        "data_samples": [sample["data_samples"] for sample in samples],
    }


def change_batch(batch: Batch, change: ViewChange) -> Batch:
    """Flip or turn every view of a batch without instances, before it is padded.

    A view that gets several changes gets them in the order of ``VIEW_CHANGES``.
    """
    views, samples = [], []
    for view, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
        changed = (
            view.rot90(1, (1, 2))
            if change == "quarter_turn"
            else view.flip(1 if change == "vertical_flip" else 2)
        )
        views.append(changed)
        meta = {**sample.metainfo, change: True, "img_shape": tuple(changed.shape[1:])}
        samples.append(DetDataSample(metainfo=meta))
    return {"inputs": views, "data_samples": samples}
