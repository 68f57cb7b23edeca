"""A model's categories against those of data and of other checkpoints: one line, or right rows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.progress import Progress

from src.average import average
from src.cli import resume
from src.cli.carried_config import take_from_checkpoints
from src.cli.derived_config import open_data, take_classes, use_own_data
from src.cli.entry_point import to_plain
from src.cli.training import start_from
from src.compare import scores_of
from src.errors import InputError
from src.export_coco import compare_categories
from src.import_weights import import_checkpoint
from src.metrics.scoring import open_ground_truth
from src.mmdet_bridge.checkpoints.files import find_checkpoint
from src.mmdet_bridge.checkpoints.reading import load_checkpoint
from src.modules.ensemble import load_models
from src.predictions.store import PredictionStore, PredictionStoreWriter
from src.report import open_predictions
from src.train import train
from src.tuning.session import Inputs, open_session
from tests.helpers.annotation_files import write_data
from tests.helpers.candidates import make_candidates
from tests.helpers.cascades import SMALL, compose_module
from tests.helpers.configs import compose_config

NAMES = {0: "root", 1: "coat", 5: "hat", 9: "shoe"}


def own(folder: Path, *overrides: str) -> DictConfig:
    """The composed configuration of the command that the README names, its data placed."""
    config = compose_config(
        "train",
        [
            "+experiment=own",
            f"annotations={folder}/a.json",
            f"images={folder}/images",
            f"paths.output_dir={folder}/run",
            *overrides,
        ],
    )
    use_own_data(config, run_directory=Path(config.paths.output_dir))
    return config


@pytest.mark.parametrize(
    ("categories", "overrides", "category_ids"),
    [
        ({1: "coat", 5: "hat", 9: "shoe"}, [], [1, 5, 9]),
        ({1: "coat", 5: "hat", 9: "shoe"}, ["module.num_classes=3"], [1, 5, 9]),
        (NAMES, [], [0, 1, 5, 9]),  # the root category has no instance
        (NAMES, ["module.num_classes=3"], [1, 5, 9]),
        (NAMES, ["module.category_ids=[9,5,1]", "module.num_classes=3"], [9, 5, 1]),
    ],
)
def test_heads_have_the_classes_of_the_file(
    tmp_path: Path, categories: dict[int, str], overrides: list[str], category_ids: list[int]
) -> None:
    write_data(tmp_path, categories, [1, 5, 9])
    config = own(tmp_path, *overrides)
    classes = take_classes(config, open_data(config))
    assert list(classes.category_ids) == to_plain(config.module.category_ids) == category_ids
    assert classes.names == tuple(NAMES[key] for key in category_ids)
    head = to_plain(config.module)["detector"]["roi_head"]
    heads = [*head["bbox_head"], *head["mask_head"]]
    assert [one["num_classes"] for one in heads] == [len(category_ids)] * 6
    datamodule = instantiate(config.datamodule)
    datamodule.setup("fit")
    labels = datamodule.train_dataset[0]["data_samples"].gt_instances.labels
    assert labels.tolist() == [category_ids.index(category) for category in (1, 5, 9)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["module.num_classes=4"], r"module.num_classes must be 3, .*a.json \(1 coat, .*got 4"),
        (
            ["module.category_ids=[0,1,2]", "module.num_classes=3"],
            r"module.category_ids must be .*a.json \(1 coat, 5 hat, 9 shoe\), got \[0, 1, 2\]",
        ),
        (["images=null"], r"images must be the folder of the images of .*a.json, got null"),
        (["annotations=null"], r"annotations must be the annotation file of .*, got null"),
        (
            ["annotations=null", "images=null"],
            r"annotations and images must be .*, got null",
        ),
    ],
)
def test_training_says_what_contradicts_its_data(
    tmp_path: Path, overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path, {1: "coat", 5: "hat", 9: "shoe"}, [1, 5, 9])
    monkeypatch.setattr(resume, "choose_checkpoint", lambda **_: pytest.fail("too late"))
    with pytest.raises(InputError, match=message):
        train(own(tmp_path, *overrides))


def test_a_name_in_a_file_is_no_interpolation(tmp_path: Path) -> None:
    write_data(tmp_path, {1: "${oc.env:HOME}", 2: "[red]\x1b[31m"}, [1, 2])
    config = own(tmp_path)
    classes = take_classes(config, open_data(config))
    assert classes.names == ("${oc.env:HOME}", "[red]\x1b[31m")
    assert "oc.env:HOME" not in str(config)
    assert str(classes) == r"1 ${oc.env:HOME}, 2 [red]\x1b[31m"


def test_a_small_set_gets_its_own_places_and_schedule(tmp_path: Path) -> None:
    write_data(tmp_path, NAMES, [1, 5, 9], images=10)
    config = own(tmp_path, "name=mine")
    take_classes(config, open_data(config))
    datamodule = instantiate(config.datamodule)
    assert (config.trainer.max_epochs, config.trainer.check_val_every_n_epoch) == (77, 7)
    datamodule.setup("fit")
    assert (len(datamodule.train_dataset), len(datamodule.validation_dataset)) == (8, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "images", "run"]
    assert (tmp_path / "run" / "split.json").is_file()
    assert any((tmp_path / "run" / ".cache").glob("a-*.store"))
    given = own(tmp_path, "trainer.max_epochs=3")
    take_classes(given, open_data(given))
    assert (given.trainer.max_epochs, given.trainer.check_val_every_n_epoch) == (3, 3)


def write_store(folder: Path, category_ids: list[int], names: list[str] | None) -> Path:
    settings = {"class_names": names}
    with PredictionStoreWriter(folder, category_ids=category_ids, settings=settings) as writer:
        made = make_candidates(0, image_id="0.png", size_hw=(48, 40), count=0)
        writer.add(made)
    return folder


CONTRADICTIONS = [
    ([0, 1, 2], None, r"predictions=.*store must be among those of .*a.json \(1 coat, .*, got 0$"),
    (
        [1, 5, 9],
        ["hat", "coat", "shoe"],
        r"must be those of .*a.json, got category 1 named hat, which is coat in .*a.json",
    ),
]


@pytest.mark.parametrize(("category_ids", "names", "message"), CONTRADICTIONS)
def test_stores_of_other_categories_than_the_truth(
    tmp_path: Path, category_ids: list[int], names: list[str] | None, message: str
) -> None:
    ground_truth = write_data(tmp_path, {1: "coat", 5: "hat", 9: "shoe"}, [1, 5, 9])
    store = write_store(tmp_path / "store", category_ids, names)
    with pytest.raises(InputError, match=message):
        compare_categories(PredictionStore(store), ground_truth)
    common = [f"annotations={ground_truth}", f"cache_dir={tmp_path}/cache"]
    config = compose_config("compare", [*common, f"a={store}", f"b={store}"])
    with pytest.raises(InputError, match=message):
        scores_of(config, "a", Progress(disable=True))
    values = {
        "predictions": str(store),
        "annotations": str(ground_truth),
        "sample_submission": None,
    }
    inputs = Inputs(**values, images=None, cache_dir=f"{tmp_path}/cache")
    with (  # of postprocess and search
        pytest.raises(InputError, match=message),
        open_session(inputs),
    ):
        pass
    report = compose_config("report", [*common, f"predictions={store}", "output=r.html"])
    with (
        open_ground_truth(ground_truth, cache_dir=tmp_path / "cache") as objects,
        pytest.raises(InputError, match=message),
        open_predictions(report, objects, Progress(disable=True)),
    ):
        pass


def write_checkpoint(path: Path, classes: int, seed: int = 0, **content: Any) -> Path:
    """As much of a checkpoint of Lightning's as tells its classes and sizes."""
    torch.manual_seed(seed)
    name = "detector.roi_head.bbox_head.0.fc_cls.weight"
    torch.save({"state_dict": {name: torch.randn(classes + 1, 4)}, **content}, path)
    return path


def carried(
    category_ids: list[int] | None, names: list[str] | None = None, sizes: Any = None
) -> dict[str, Any]:
    values = {"num_classes": 3, "category_ids": category_ids, "class_names": names}
    datamodule = sizes or {"predict_short_edge_px": 320, "predict_long_edge_px": 544}
    return {"hyper_parameters": values, "config": {"datamodule": datamodule}}


def test_prediction_takes_classes_and_sizes_from_the_checkpoint(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a.ckpt", 3, **carried([1, 5, 9], ["coat", "hat", "shoe"]))
    config = compose_config("predict", [f"checkpoint={path}"])
    found = take_from_checkpoints(config, [path])
    assert (str(found.classes), found.own_inference) == ("1 coat, 5 hat, 9 shoe", True)
    assert to_plain(config.module.category_ids) == [1, 5, 9]
    sizes = ("predict_short_edge_px", "predict_long_edge_px")
    assert [config.datamodule[key] for key in sizes] == [320, 544]
    given = compose_config(
        "predict", ["datamodule.predict_short_edge_px=200", "module=htc_tiny", "datamodule.seed=1"]
    )
    assert not take_from_checkpoints(given, [path]).own_inference
    assert [given.datamodule[key] for key in sizes] == [200, 544]


@pytest.mark.parametrize(
    "sizes",
    [
        {"predict_short_edge_px": "${oc.env:HOME}", "predict_long_edge_px": 544},
        {"predict_short_edge_px": {"_target_": "os.system"}, "predict_long_edge_px": 544},
        {"predict_short_edge_px": True, "predict_long_edge_px": 544},
        {"predict_short_edge_px": 320, "predict_long_edge_px": 10**9},
        ["predict_short_edge_px"],
        "320",
    ],
)
def test_sizes_that_are_no_sizes_are_not_taken(tmp_path: Path, sizes: Any) -> None:
    path = write_checkpoint(tmp_path / "a.ckpt", 3, **carried([1, 5, 9], sizes=sizes))
    config = compose_config("predict", [])
    before = to_plain(config.datamodule)
    take_from_checkpoints(config, [path])
    assert to_plain(config.datamodule) == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["module.category_ids=[0,1,2]"],
            r"module.category_ids must be \[1, 5, 9\], as .*a.ckpt has it \(1, 5, 9\), got \[0, 1",
        ),
        (["module.num_classes=4"], r"module.num_classes must be 3, as .*a.ckpt has it .*, got 4"),
    ],
)
def test_prediction_refuses_other_classes_than_the_weights(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    path = write_checkpoint(tmp_path / "a.ckpt", 3, **carried([1, 5, 9]))
    with pytest.raises(InputError, match=message):
        take_from_checkpoints(compose_config("predict", overrides), [path])


def test_weights_alone_are_taken_as_numbered_from_0_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_checkpoint(tmp_path / "a.pth", 3)
    found = take_from_checkpoints(compose_config("predict", []), [path])
    assert found.classes.category_ids == (0, 1, 2)
    assert "a.pth does not say which categories its 3 classes are: taken as 0 to 2" in caplog.text
    given = compose_config("predict", ["module.category_ids=[1,5,9]"])
    assert take_from_checkpoints(given, [path]).classes.category_ids == (1, 5, 9)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            carried([9, 5, 1]),
            r"b.ckpt must have the classes of .*a.ckpt, .*: class 0 is category 1",
        ),
        (
            carried([1, 5, 9], ["hat", "coat", "shoe"]),
            r"class 0 is category 1 coat there, 1 hat here",
        ),
    ],
)
def test_checkpoints_of_another_class_order_are_not_mixed(
    tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    own = carried([1, 5, 9], ["coat", "hat", "shoe"])
    paths = [
        write_checkpoint(tmp_path / name, 3, seed=seed, **content)
        for seed, (name, content) in enumerate({"a.ckpt": own, "b.ckpt": other}.items())
    ]
    files = f"checkpoint=[{paths[0]},{paths[1]}]"
    with pytest.raises(InputError, match=message):
        average(compose_config("average", [files, f"output={tmp_path}/soup.safetensors"]))
    with pytest.raises(InputError, match=message):
        take_from_checkpoints(compose_config("predict", [files]), paths)


def test_a_soup_still_says_its_classes_and_sizes(tmp_path: Path) -> None:
    content = carried([1, 5, 9], ["coat", "hat", "shoe"])
    paths = [
        write_checkpoint(tmp_path / f"{seed}.ckpt", 3, seed=seed, **content) for seed in (0, 1)
    ]
    soup = tmp_path / "soup.safetensors"
    average(compose_config("average", [f"checkpoint=[{paths[0]},{paths[1]}]", f"output={soup}"]))
    config = compose_config("predict", [])
    assert str(take_from_checkpoints(config, [soup]).classes) == "1 coat, 5 hat, 9 shoe"
    assert config.datamodule.predict_short_edge_px == 320


@pytest.mark.parametrize("make", [os.symlink, os.link, shutil.copy])
def test_one_checkpoint_under_two_names_counts_once(tmp_path: Path, make: Any) -> None:
    module = instantiate(compose_module("htc_tiny", *SMALL).module, init_weights=False)
    path = tmp_path / "epoch_00.ckpt"
    torch.save({"state_dict": module.state_dict()}, path)
    make(path, tmp_path / "last.ckpt")
    paths = [path, tmp_path / "last.ckpt"]
    message = r"different checkpoints, got .*epoch_00.ckpt and .*last.ckpt, .* the same weights"
    with pytest.raises(InputError, match=message):
        load_models(
            paths,
            detector=module.hparams["detector"],
            num_classes=5,
            category_ids=None,
        )
    files = [f"checkpoint=[{paths[0]},{paths[1]}]", f"output={tmp_path}/soup.safetensors"]
    with pytest.raises(InputError, match=f"{message}; weights= says"):
        average(compose_config("average", files))


def test_first_weights_go_to_their_categories(tmp_path: Path) -> None:
    given = instantiate(compose_module("htc_tiny", *SMALL).module)
    path = tmp_path / "a.ckpt"
    content = {
        "state_dict": given.state_dict(),
        "hyper_parameters": {"num_classes": 5, "category_ids": [1, 2, 3, 4, 5]},
    }
    torch.save(content, path)
    module = instantiate(compose_module("htc_tiny", *SMALL).module, category_ids=[5, 3, 1, 2, 4])
    start_from(module, str(path))
    before, after = given.detector.state_dict(), module.detector.state_dict()
    for name in before:
        rows = list(range(len(before[name]))) if before[name].ndim else None
        if name.endswith(("fc_cls.weight", "fc_cls.bias")):
            rows = [4, 2, 0, 1, 3, 5]  # the background stays last
        elif "conv_logits" in name:
            rows = [4, 2, 0, 1, 3]
        expected = before[name] if rows is None else before[name][rows]
        assert torch.equal(after[name], expected), name
    other = instantiate(compose_module("htc_tiny", *SMALL).module, category_ids=[0, 1, 2, 3, 4])
    message = r"initial_weights=.*a.ckpt: the classes must be the categories of the model \(0, 1"
    with pytest.raises(InputError, match=message):
        start_from(other, str(path))


def test_slicing_keeps_rows_by_id(tmp_path: Path) -> None:
    given = instantiate(compose_module("htc_tiny", *SMALL).module)
    path, output = tmp_path / "a.ckpt", tmp_path / "b.safetensors"
    values = {"num_classes": 5, "category_ids": [1, 2, 3, 4, 5]}
    torch.save({"state_dict": given.state_dict(), "hyper_parameters": values}, path)
    small = [one for one in SMALL if not one.startswith("module.num_classes")]
    call = [f"source={path}", f"output={output}", "module=htc_tiny", *small, "class_layers=slice"]
    import_checkpoint(compose_config("import_weights", [*call, "module.category_ids=[7,3,1]"]))
    made, name = load_checkpoint(output), "roi_head.bbox_head.1.fc_cls.weight"
    assert made.classes is not None
    assert made.classes.category_ids == (7, 3, 1)
    rows = given.detector.state_dict()[name]
    assert torch.equal(made.weights[name][1:], rows[[2, 0, 5]])
    message = r"module.category_ids must .*model's 46 .*=slice goes by .*a.ckpt \(5: 1, .*got null"
    with pytest.raises(InputError, match=message):
        import_checkpoint(compose_config("import_weights", call))


def test_a_folder_means_its_best_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    last = write_checkpoint(folder / "last.ckpt", 3)
    assert find_checkpoint(tmp_path / "run") == find_checkpoint(tmp_path / "run/last.ckpt") == last
    with pytest.raises(
        InputError, match=r"checkpoint must be .*best.ckpt: no such file; .*last.ckpt"
    ):
        find_checkpoint(tmp_path / "run" / "best.ckpt")
    best = write_checkpoint(folder / "best.ckpt", 3)
    for path in ("run", "run/best.ckpt", "run/checkpoints", "run/checkpoints/best.ckpt"):
        assert find_checkpoint(tmp_path / path) == best
    with pytest.raises(InputError, match=r"checkpoint must be .*nowhere: no such file"):
        find_checkpoint(tmp_path / "nowhere")
