"""From checkpoints to an ensemble's detectors: which files, which configuration, which classes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning import Trainer

from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import change_batch
from src.mmdet_bridge.cascade.passes import ViewTransform
from src.mmdet_bridge.checkpoints.best import best_checkpoints
from src.mmdet_bridge.checkpoints.files import checkpoint_paths
from src.mmdet_bridge.checkpoints.reading import save_weights
from src.mmdet_bridge.options import VIEW_CHANGES
from src.modules.ensemble import CascadeEnsemble, load_models
from tests.helpers.cascades import SMALL, compose_module, detector_config, make_batch, spread_scores

DEEPER = "module.detector.backbone.depth=34"


def save_checkpoint(path: Path, *overrides: str, **hyper_parameters: Any) -> None:
    """A checkpoint of a ``CascadeModule``, written by Lightning."""
    torch.manual_seed(len(path.name))
    module = instantiate(compose_module("htc_tiny", *SMALL, *overrides).module, init_weights=False)
    spread_scores(module.detector)
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=path.parent)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] |= hyper_parameters
    torch.save(content, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoints")
    save_checkpoint(directory / "plain.ckpt")
    save_checkpoint(directory / "deeper.ckpt", DEEPER)
    return directory


def load(*paths: Path, **changes: Any) -> list[Any]:
    settings = {"detector": detector_config("htc_tiny", *SMALL), "num_classes": 5}
    return load_models(paths, **{**settings, "category_ids": None, **changes})


def test_models_of_different_backbones_need_no_configuration(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    models = load(folder / "plain.ckpt", folder / "deeper.ckpt")
    assert [model.backbone.depth for model in models] == [18, 34]
    assert not any(model.training for model in models)
    (message,) = caplog.messages  # that of the one that differs
    assert "deeper.ckpt is built as it was trained, which differs from module.detector" in message
    assert "backbone.depth: 34 there, 18 here" in message
    ensemble = CascadeEnsemble(models, category_ids=range(5), max_candidates=7)
    found = ensemble.predict_step({"views": [make_batch(with_objects=False)], "failures": {}}, 0)
    assert [len(candidates) for candidates in found] == [7, 7]


def test_what_belongs_to_inference_is_the_configurations(folder: Path) -> None:
    fewer = detector_config("htc_tiny", *SMALL, "module.detector.sizes.proposals_inference=11")
    (model,) = load(folder / "deeper.ckpt", detector=fewer)
    assert model.test_cfg.rpn.max_per_img == 11
    assert model.backbone.depth == 34


def test_weights_alone_take_the_configured_detector(folder: Path, tmp_path: Path) -> None:
    weights = torch.load(folder / "deeper.ckpt", weights_only=True)["state_dict"]
    save_weights(weights, tmp_path / "deeper.safetensors")
    deeper = detector_config("htc_tiny", *SMALL, DEEPER)
    (model,) = load(tmp_path / "deeper.safetensors", detector=deeper)
    name = "backbone.layer3.5.conv2.weight"
    assert torch.equal(model.state_dict()[name], weights[f"detector.{name}"])
    with pytest.raises(InputError, match=r"deeper.safetensors: the weights do not fit the model"):
        load(tmp_path / "deeper.safetensors")


@pytest.mark.parametrize(
    ("trained", "configured", "message"),
    [
        ({"num_classes": 4}, {}, r"it must have 5 classes .*, got 4"),
        (
            {"category_ids": [0, 1, 7, 3, 4]},
            {},
            r"class 2 must be category 2 .*, got 7",
        ),
        ({}, {"num_classes": 46}, r"it must have 46 classes .*, got 5"),
        (
            {},
            {"category_ids": [4, 3, 2, 1, 0]},
            r"class 0 must be category 4 .*, got 0",
        ),
    ],
)
def test_checkpoint_of_another_class_list_is_named(
    tmp_path: Path, trained: dict[str, Any], configured: dict[str, Any], message: str
) -> None:
    save_checkpoint(tmp_path / "other.ckpt", **trained)
    with pytest.raises(InputError, match=rf"other.ckpt: another class list: {message}$"):
        load(tmp_path / "other.ckpt", **configured)


def test_classes_of_weights_alone_are_counted(folder: Path, tmp_path: Path) -> None:
    weights = torch.load(folder / "plain.ckpt", weights_only=True)["state_dict"]
    save_weights(weights, tmp_path / "weights.safetensors")
    assert load(tmp_path / "weights.safetensors", category_ids=[9, 8, 7, 6, 5])
    with pytest.raises(
        InputError, match=r"weights.safetensors: another class list: it must have .*, got 5"
    ):
        load(tmp_path / "weights.safetensors", num_classes=46)


def test_models_that_do_not_fit_together_are_named(tmp_path: Path, folder: Path) -> None:
    save_checkpoint(tmp_path / "odd.ckpt")
    content = torch.load(tmp_path / "odd.ckpt", weights_only=True)
    extractor = content["hyper_parameters"]["detector"]["roi_head"]["mask_roi_extractor"]
    extractor["roi_layer"]["output_size"] = 7
    torch.save(content, tmp_path / "odd.ckpt")
    message = (
        r"odd.ckpt: the edge of a predicted mask must be 28 as in checkpoint .*plain.ckpt, "
        "the models of an ensemble having the same, got 14"
    )
    with pytest.raises(InputError, match=message):
        load(folder / "plain.ckpt", tmp_path / "odd.ckpt")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    (loaded,) = load(folder / "plain.ckpt")
    return loaded


def touch(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).touch()


def test_best_checkpoints_by_the_score_in_their_names(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "best_epoch_07_score_0.3312.ckpt",
        "best_epoch_10_score_0.3312.ckpt",
        "best_epoch_11_score_0.34-v1.ckpt",  # Lightning's second of that name
        "best_epoch_12_score_0.0999.ckpt",
        "epoch_12.ckpt",
        "last.ckpt",
        "notes_score_0.9.txt",
    )
    assert [path.name for path in best_checkpoints(tmp_path, 3)] == [
        "best_epoch_11_score_0.34-v1.ckpt",
        "best_epoch_07_score_0.3312.ckpt",
        "best_epoch_10_score_0.3312.ckpt",
    ]
    assert checkpoint_paths(None, best=1, directory=tmp_path) == best_checkpoints(tmp_path, 1)
    with pytest.raises(
        InputError, match=r"ensemble.num_best must be .* with a score in .*4 .* got 5"
    ):
        best_checkpoints(tmp_path, 5)
    with pytest.raises(InputError, match=r"ensemble.num_best must be at least 1 .*, 4 .* got 0"):
        best_checkpoints(tmp_path, 0)


def test_best_checkpoints_by_the_state_of_the_callback_that_kept_them(tmp_path: Path) -> None:
    touch(tmp_path, "epoch_03.ckpt", "epoch_05.ckpt", "epoch_09.ckpt")
    scores = {
        "/elsewhere/epoch_03.ckpt": 0.31,
        "/elsewhere/epoch_05.ckpt": 0.33,
        "/elsewhere/gone.ckpt": 0.4,
    }
    best_k_models = {name: torch.tensor(score) for name, score in scores.items()}
    callbacks = {
        "ModelCheckpoint{'monitor': 'validation/competition_map'}": {
            "monitor": "validation/competition_map",
            "best_k_models": best_k_models,
        },
        "ModelCheckpoint{'monitor': None}": {
            "monitor": None,
            "best_k_models": {"epoch_09.ckpt": torch.tensor(9.0)},
        },
    }
    state_dict = {"weight": torch.zeros(1)}
    torch.save({"state_dict": state_dict, "callbacks": callbacks}, tmp_path / "last.ckpt")
    found = best_checkpoints(tmp_path, 2)
    assert [path.name for path in found] == ["epoch_05.ckpt", "epoch_03.ckpt"]
    with pytest.raises(InputError, match=r"ensemble.num_best must be .*, 2 .* got 3"):
        best_checkpoints(tmp_path, 3)


def test_checkpoints_that_are_given(tmp_path: Path) -> None:
    touch(tmp_path, "a.ckpt", "b.ckpt")
    a, b = str(tmp_path / "a.ckpt"), str(tmp_path / "b.ckpt")
    assert checkpoint_paths(a, best=None, directory=tmp_path) == [tmp_path / "a.ckpt"]
    assert [str(p) for p in checkpoint_paths([b, a], best=None, directory=tmp_path)] == [b, a]
    for given, best, message in (
        (
            None,
            None,
            r"checkpoint must be the trained weights, a path or .*, got null; or",
        ),
        ([], None, r"checkpoint must be the trained weights"),
        ([a, "no.ckpt"], None, r"checkpoint must be .*, got no.ckpt: no such file"),
        (a, 3, r"checkpoint must be null with ensemble.num_best=3, got .*a.ckpt"),
    ):
        with pytest.raises(InputError, match=message):
            checkpoint_paths(given, best=best, directory=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_weights": [1.0]},
            r"ensemble.model_weights must be 2 numbers, .* got \[1.0\]",
        ),
        (
            {"model_weights": [1.0, 0.0]},
            r"ensemble.model_weights must be a finite number above 0, got 0.0",
        ),
        ({"model_weights": [1.0, "a"]}, r"model_weights must be a finite number above 0, got 'a'"),
        (
            {"feature_memory_gb": "lots"},
            r"must be a number of GB, 0 or more, got 'lots'",
        ),
        (
            {"model_weights": [1.0, float("nan")]},
            r"must be a finite number above 0, got nan",
        ),
        ({"seed_proposals": "none"}, r"seed_proposals must be one of all, first_view"),
        ({"feature_memory_gb": -1}, r"feature_memory_gb must be a number of GB, 0 or more, got -1"),
        (
            {"feature_memory_cpu_gb": -1},
            r"feature_memory_cpu_gb must be a number of GB, 0 .*, got -1",
        ),
        ({"min_score": 2.0}, r"module.min_score must be a number from 0, below 1, got 2.0"),
        ({"category_ids": [1, 2]}, r"module.category_ids must be 5 different ids, .*, got 2"),
    ],
)
def test_wrong_values_of_an_ensemble_are_named(
    model: Any, changes: dict[str, Any], message: str
) -> None:
    models = [model, model]
    with pytest.raises(InputError, match=message):
        CascadeEnsemble(models, **{"category_ids": range(5), **changes})


@pytest.mark.parametrize(
    "changes", [("flip",), ("vertical_flip",), ("quarter_turn",), VIEW_CHANGES]
)
def test_changed_views_are_the_same_pixels_changed(model: Any, changes: Any) -> None:
    """``view_changes`` equals giving the changed images as views of their own."""
    models = [model]
    plain = make_batch(with_objects=False)
    views = [plain]
    for change in changes:
        views += [change_batch(view, change) for view in views]
    assert len(views) == 2 ** len(changes)
    seen = {(tuple(v["inputs"][0].shape), v["inputs"][0].numpy().tobytes()) for v in views}
    assert len(seen) == len(views)
    values: dict[str, Any] = {"category_ids": range(5), "min_score": 0.1}
    batch = {"views": [plain], "failures": {}}
    changed = CascadeEnsemble(models, view_changes=changes, **values).predict_step(batch, 0)
    by_views = CascadeEnsemble(models, **values).predict_step({"views": views, "failures": {}}, 0)
    alone = CascadeEnsemble(models, **values).predict_step(batch, 0)
    for one, other, single in zip(changed, by_views, alone, strict=True):
        assert (one.scores == other.scores).all()
        assert (one.boxes_xyxy == other.boxes_xyxy).all()
        assert (one.mask_probabilities == other.mask_probabilities).all()
        assert len(one) != len(single) or (one.scores != single.scores).any()


@pytest.mark.parametrize("changes", [("flip",), VIEW_CHANGES])
def test_a_changed_image_has_changed_predictions(model: Any, changes: Any) -> None:
    """Of all eight views (or both) nothing depends on how the image lies: the boxes of the
    upside-down image are those of the image, upside down.
    """
    plain = make_batch(with_objects=False)
    turned = change_batch(plain, changes[0])
    for sample in turned["data_samples"]:  # now an image of its own
        sample.set_metainfo({"ori_shape": sample.img_shape, changes[0]: False})
    for sample in plain["data_samples"]:
        sample.set_metainfo({"ori_shape": sample.img_shape, "scale_factor": (1.0, 1.0)})
    for sample in turned["data_samples"]:
        sample.set_metainfo({"scale_factor": (1.0, 1.0)})
    ensemble = CascadeEnsemble(
        [model], view_changes=changes, category_ids=range(5), min_score=0.15, max_candidates=50
    )
    one = ensemble.predict_step({"views": [plain], "failures": {}}, 0)
    other = ensemble.predict_step({"views": [turned], "failures": {}}, 0)
    for image, changed in zip(one, other, strict=True):
        assert len(image) > 3
        best, its_twin = image.scores.max(), changed.scores.max()
        assert abs(best - its_twin) < 1e-4
        transform = ViewTransform.of(
            {"scale_factor": (1, 1), "img_shape": changed.size_hw, changes[0]: True}
        )
        box = torch.from_numpy(image.boxes_xyxy[image.scores.argmax()])[None]
        expected = transform.to_view(box)[0]
        found = torch.from_numpy(changed.boxes_xyxy)
        assert (found - expected).abs().amax(dim=1).min() < 0.01


def test_images_too_large_for_the_device_fail_with_the_others_going_on(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = CascadeEnsemble([model], category_ids=range(5))
    batch = {"views": [make_batch(with_objects=False)], "failures": {"gone": "no file"}}

    def short(_: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(model, "extract_feat", short)
        assert ensemble.predict_step(batch, 0) == []
    assert list(ensemble.failures) == ["gone", "image0", "image1"]
    assert "do not fit into the device's memory" in ensemble.failures["image1"]
    assert len(ensemble.predict_step(batch, 0)) == 2
    assert ensemble.predict_step({"views": [], "failures": {"cut": "damaged"}}, 0) == []
    assert ensemble.failures["cut"] == "damaged"
