"""The winning recipe: the composed configuration has its values, and the README says where."""

from __future__ import annotations

import re
from typing import Any

import pytest
from omegaconf import DictConfig, ListConfig, OmegaConf

from src.cli.entry_point import CONFIG_DIRECTORY
from tests.helpers.configs import ENTRY_POINTS, compose_config

ROOT = CONFIG_DIRECTORY.parent
ABSENT = "absent"  # of a key that must not be there

DETECTOR = "module.detector"
HEAD = f"{DETECTOR}.roi_head"
TRAIN, TEST = f"{DETECTOR}.train_cfg", f"{DETECTOR}.test_cfg"
AUGMENTATIONS = "datamodule.pixel_augmentations"

RECIPE: list[tuple[str, str, Any]] = [
    ("S1", "module.num_classes", 46),
    ("S1", f"{DETECTOR}.type", "HybridTaskCascade"),
    ("S1", f"{DETECTOR}.backbone.type", "ResNeXt"),
    ("S1", f"{DETECTOR}.backbone.depth", 101),
    ("S1", f"{DETECTOR}.backbone.groups", 64),
    ("S1", f"{DETECTOR}.backbone.base_width", 4),
    ("S1", f"{DETECTOR}.backbone.frozen_stages", 1),
    ("S1", f"{DETECTOR}.backbone.norm_cfg.type", "BN"),
    ("S1", f"{DETECTOR}.backbone.norm_eval", True),
    ("S1", f"{DETECTOR}.backbone.dcn.type", "DCN"),  # v1; v2 is DCNv2
    ("S1", f"{DETECTOR}.backbone.stage_with_dcn", [False, True, True, True]),
    ("S1", f"{DETECTOR}.neck.type", "FPN"),
    ("S1", f"{HEAD}.type", "HybridTaskCascadeRoIHead"),
    ("S1", f"{HEAD}.num_stages", 3),
    ("S1", f"{HEAD}.interleaved", True),
    ("S1", f"{HEAD}.mask_info_flow", True),
    ("S1", f"{HEAD}.semantic_head", ABSENT),
    ("S1", f"{HEAD}.semantic_roi_extractor", ABSENT),
    ("S1", f"{HEAD}.stage_loss_weights", [1, 0.5, 0.25]),
    *[("S1", f"{HEAD}.bbox_head[{stage}].reg_class_agnostic", True) for stage in range(3)],
    *[("S1", f"{HEAD}.bbox_head[{stage}].num_classes", 46) for stage in range(3)],
    *[("S1", f"{HEAD}.mask_head[{stage}].num_classes", 46) for stage in range(3)],
    ("S1", f"{HEAD}.bbox_roi_extractor.roi_layer.output_size", 7),
    ("S1", f"{HEAD}.mask_roi_extractor.roi_layer.output_size", 14),
    ("S1", f"{DETECTOR}.rpn_head.anchor_generator.scales", [8]),
    ("S1", f"{DETECTOR}.rpn_head.anchor_generator.ratios", [0.5, 1.0, 2.0]),
    ("S1", f"{DETECTOR}.rpn_head.anchor_generator.strides", [4, 8, 16, 32, 64]),
    ("S1", f"{TRAIN}.rpn_proposal.nms.iou_threshold", 0.7),
    ("S1", f"{TRAIN}.rpn_proposal.nms_pre", 2000),
    ("S1", f"{TRAIN}.rpn_proposal.max_per_img", 2000),
    ("S1", f"{TEST}.rpn.nms.iou_threshold", 0.7),
    ("S1", f"{TEST}.rpn.nms_pre", 1000),
    ("S1", f"{TEST}.rpn.max_per_img", 1000),
    *[
        ("S1", f"{TRAIN}.rcnn[{stage}].assigner.{key}", threshold)
        for stage, threshold in enumerate((0.5, 0.6, 0.7))
        for key in ("pos_iou_thr", "neg_iou_thr", "min_pos_iou")
    ],
    *[("S1", f"{TRAIN}.rcnn[{stage}].sampler.num", 512) for stage in range(3)],
    *[("S1", f"{TRAIN}.rcnn[{stage}].sampler.pos_fraction", 0.25) for stage in range(3)],
    *[("S1", f"{TRAIN}.rcnn[{stage}].mask_size", 28) for stage in range(3)],
    ("S2", "initial_weights", "data/htc_x101_dcn_coco.safetensors"),
    ("S3", "datamodule.num_validation_images", 450),
    ("S3", "datamodule.split_seed", 777),
    ("S4", f"{AUGMENTATIONS}.cutout._target_", "albumentations.CoarseDropout"),
    ("S4", f"{AUGMENTATIONS}.cutout.p", 0.5),
    ("S4", f"{AUGMENTATIONS}.cutout.hole_height_range", [1, 64]),
    ("S4", f"{AUGMENTATIONS}.cutout.hole_width_range", [1, 64]),
    (
        "S4",
        f"{AUGMENTATIONS}.brightness_contrast._target_",
        "albumentations.RandomBrightnessContrast",
    ),
    ("S4", f"{AUGMENTATIONS}.brightness_contrast.p", 0.5),
    ("S4", f"{AUGMENTATIONS}.brightness_contrast.brightness_limit", 0.3),
    ("S4", f"{AUGMENTATIONS}.brightness_contrast.contrast_limit", 0.3),
    ("S4", f"{AUGMENTATIONS}.jpeg._target_", "albumentations.ImageCompression"),
    ("S4", f"{AUGMENTATIONS}.jpeg.compression_type", "jpeg"),
    ("S4", f"{AUGMENTATIONS}.jpeg.p", 0.5),
    ("S4", f"{AUGMENTATIONS}.jpeg.quality_range", [80, 99]),
    ("S4", "datamodule.flip_probability", 0.5),
    ("S5", "datamodule.train_short_edge_px", [600, 1200]),
    ("S5", "datamodule.train_long_edge_px", 1900),
    ("S5", f"{DETECTOR}.data_preprocessor.pad_size_divisor", 32),
    ("S5", f"{DETECTOR}.data_preprocessor.mean", [123.675, 116.28, 103.53]),
    ("S5", f"{DETECTOR}.data_preprocessor.std", [58.395, 57.12, 57.375]),
    ("S5", f"{DETECTOR}.data_preprocessor.bgr_to_rgb", False),  # images are read as RGB
    ("S6", "optimizer._target_", "torch.optim.SGD"),
    ("S6", "optimizer.lr", 0.03),
    ("S6", "optimizer.momentum", 0.9),
    ("S6", "optimizer.weight_decay", 0.0001),
    ("S6", "trainer.gradient_clip_val", 35.0),
    ("S6", "trainer.gradient_clip_algorithm", "norm"),
    ("S6", "datamodule.batch_size", 2),  # on each of 8 devices
    ("S6", "module.base_batch_size", 16),
    ("S7", "scheduler._target_", "src.modules.schedules.warmup_multistep"),
    ("S7", "scheduler.warmup_steps", 500),
    ("S7", "scheduler.warmup_ratio", 1 / 3),
    ("S7", "scheduler.milestone_epochs", [10, 18]),
    ("S7", "scheduler.gamma", 0.1),
    ("S7", "trainer.max_epochs", 20),
    # one an epoch, all kept
    ("S7", "callbacks.run_checkpoint._target_", "src.callbacks.checkpoints.RunCheckpoint"),
    ("S7", "callbacks.run_checkpoint.keep", None),
]


@pytest.fixture(scope="module")
def recipe() -> DictConfig:
    return compose_config("train", ["+experiment=htc_x101", "paths.output_dir=unused"])


@pytest.mark.parametrize(("row", "key", "value"), RECIPE, ids=lambda part: str(part)[:60])
def test_the_recipe_has_the_value(row: str, key: str, value: Any, recipe: DictConfig) -> None:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(recipe, parent)
    if value is ABSENT:
        assert name not in node
        return
    found = node[name]
    found = OmegaConf.to_container(found, resolve=True) if isinstance(found, ListConfig) else found
    assert found == value
    assert type(found) is type(value)


def test_each_key_is_told_once() -> None:
    keys = [key for _, key, _ in RECIPE]
    assert len(set(keys)) == len(keys) == 95


def readme_rows() -> list[tuple[list[str], list[str], list[str]]]:
    """The README's recipe table: the numbers of the rows, config keys and files of each line."""
    rows = []
    for line in (ROOT / "README.md").read_text().splitlines():
        if re.match(r"\| S\d+", line):
            what, keys, code = line.strip("|").split("|")
            numbers = re.findall(r"\bS\d+\b", what)
            rows.append((numbers, *(re.findall(r"`([^`]+)`", cell) for cell in (keys, code))))
    return rows


def has_key(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return OmegaConf.is_dict(node) and name in list(node)  # what is still ??? counts


def test_readme_tells_every_row_of_the_recipe() -> None:
    told = [number for numbers, _, _ in readme_rows() for number in numbers]
    assert told == [f"S{number}" for number in range(1, 19)]


def test_every_key_that_the_readme_names_exists(recipe: DictConfig) -> None:
    others = [
        compose_config(name, ["paths.output_dir=unused"] * (name in ("train", "predict")))
        for name in ENTRY_POINTS
    ]
    for numbers, keys, _ in readme_rows():
        in_training = numbers[0] in ("S1", "S3", "S4", "S5", "S6", "S7")  # S2: a file is made first
        for key in keys:
            group, _, option = key.lstrip("+").partition("=")
            if option:
                assert (CONFIG_DIRECTORY / group / f"{option}.yaml").is_file(), key
            elif in_training:
                assert has_key(recipe, key), f"{numbers}: {key}"
            else:
                assert any(has_key(config, key) for config in others), f"{numbers}: {key}"


def test_every_file_that_the_readme_names_exists() -> None:
    files = [file for _, _, code in readme_rows() for file in code]
    assert len(files) >= 18
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_readme_points_each_value_at_its_key() -> None:
    """At the key itself, one above it, or the option of its group."""
    pointers = {number: keys for numbers, keys, _ in readme_rows() for number in numbers}
    lost = [
        f"{row}: {key}"
        for row, key, _ in RECIPE
        if not any(
            key == pointer.partition("=")[0] or key.startswith(f"{pointer.partition('=')[0]}.")
            for pointer in pointers[row]
        )
    ]
    assert lost == []
