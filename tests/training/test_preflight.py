"""What a run cannot be started with is one line and exit code 2, before anything is built."""

from __future__ import annotations

import logging
import re
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import OmegaConf

from src.callbacks.training_steps import MemoryAdvice, describe_batch
from src.cli.preflight import build_trainer, silence_lightning
from src.cli.resume import describe_next_start
from src.cli.run_checks import (
    check_devices,
    check_monitors,
    check_multirun,
    check_precision,
    local_devices,
)
from src.cli.training import start_from
from src.errors import InputError
from src.mmdet_bridge.checkpoints.reading import save_weights
from src.modules.cascade import CascadeModule
from src.train import main
from tests.helpers.cascades import SMALL, compose_module, make_batch
from tests.helpers.runs import overrides, run

FROZEN = ("module.detector.backbone.frozen_stages=1",)


def trainer(**keys: Any) -> Any:
    values = {"_target_": "lightning.Trainer", "accelerator": "auto", "devices": 1}
    return OmegaConf.create(values | keys)


@pytest.mark.parametrize(
    ("devices", "number"), [(3, 3), ("3", 3), ([0, 2], 2), ("0,2", 2), ("auto", 1), (-1, 1)]
)
def test_devices_are_counted(devices: Any, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert local_devices(trainer(devices=devices)) == number


def test_all_gpus_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert local_devices(trainer(devices="auto")) == 4
    assert local_devices(trainer(devices="auto", accelerator="cpu")) == 1


def test_devices_that_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    message = r"trainer\.devices must be 1 on this .* no GPU, got 8; trainer\.accelerator=cpu"
    with pytest.raises(InputError, match=message):
        check_devices(trainer(devices=8))
    message = r"trainer\.accelerator must be cpu on this machine, which has no GPU, got gpu"
    with pytest.raises(InputError, match=message):
        check_devices(trainer(devices=8, accelerator="gpu"))
    check_devices(trainer(devices=8, accelerator="cpu"))
    check_devices(trainer())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"trainer\.devices must be 1 to 2, .*, got 8"):
        check_devices(trainer(devices=8))
    check_devices(trainer(devices=2))


def test_first_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = instantiate(compose_module("htc_tiny", *SMALL, *FROZEN).module)
    missing = tmp_path / "coco.safetensors"
    with pytest.raises(
        InputError,
        match=r"initial_weights must be .*coco\.safetensors: no such .*import_weights",
    ):
        start_from(module, str(missing))
    with caplog.at_level(logging.WARNING):
        start_from(module, None)
    assert re.search(r"initial_weights=null: \d+ parameters of the frozen stages", caplog.text)
    caplog.clear()
    given = {name: value + 1 for name, value in module.detector.state_dict().items()}
    save_weights(given, missing)
    start_from(module, str(missing))
    assert all(torch.equal(v, given[k]) for k, v in module.detector.state_dict().items())
    start_from(instantiate(compose_module("htc_tiny", *SMALL).module), None)
    assert caplog.text == ""


def test_lightnings_refusals_are_one_line() -> None:
    with pytest.raises(InputError, match=r"trainer: .*invalid accelerator name.*'cgpu'"):
        build_trainer(trainer(accelerator="cgpu"), callbacks=[], loggers=[])
    with pytest.raises(InputError, match=r"trainer: Precision 'bf61' is invalid\. Allowed .*bf16"):
        build_trainer(trainer(precision="bf61"), callbacks=[], loggers=[])


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true", 64, "transformer-engine"])
def test_a_precision_without_float32_weights_is_refused(precision: Any) -> None:
    message = (
        r"trainer\.precision must be one of 32-true, 16-mixed, bf16-mixed, got "
        f"{re.escape(str(precision))}; the mixed ones keep"
    )
    with pytest.raises(InputError, match=message):
        check_precision(trainer(precision=precision))


@pytest.mark.parametrize("precision", ["32-true", 32, None, "16-mixed", 16, "bf16-mixed", "bf16"])
def test_legal_precisions(precision: Any) -> None:
    check_precision(trainer(precision=precision))


SCORE = {"_target_": "src.callbacks.x", "averaging": "per_class"}


def evaluator(**metrics: Any) -> dict[str, Any]:
    return {"evaluator": {"_target_": "src.callbacks.x", "metrics": metrics}}


BEST = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint"}
STOP = {"_target_": "lightning.pytorch.callbacks.EarlyStopping"}


@pytest.mark.parametrize(
    ("callbacks", "limits", "message"),
    [
        (
            {
                **evaluator(competition_score=SCORE),
                "best": {**BEST, "monitor": "validation/competition_mop"},
            },
            {},
            r"best\.monitor must be a score that is logged \(validation/competition_map, train"
            r"/loss\), got validation/competition_mop; callbacks\.best=null does without",
        ),
        (
            {
                **evaluator(competition_score=None),
                "best": {**BEST, "monitor": "validation/competition_map"},
            },
            {},
            r"got validation/competition_map "
            r"\(callbacks\.evaluator\.metrics\.competition_score is null\)",
        ),
        (
            {"evaluator": None, "best": {**BEST, "monitor": "validation/competition_map"}},
            {},
            r"got validation/competition_map \(callbacks\.evaluator is null\)",
        ),
        (
            {**evaluator(other=SCORE), "best": {**BEST, "monitor": "mine"}},
            {},
            r"best\.monitor must be a score that is logged \(train/loss\), got mine;",
        ),
        (
            {
                **evaluator(competition_score=SCORE),
                "stop": {**STOP, "monitor": "validation/competition_map"},
            },
            {"limit_val_batches": 0},
            r"limit_val_batches must leave .*callbacks\.stop\.monitor=.* needs, got 0",
        ),
    ],
)
def test_a_score_that_nothing_logs(callbacks: dict, limits: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_monitors(callbacks, limits)


@pytest.mark.parametrize(
    "callbacks",
    [
        {
            **evaluator(competition_score=SCORE),
            "best": {**BEST, "monitor": "validation/competition_map"},
        },
        {
            **evaluator(coco_average_precision=SCORE),
            "best": {**BEST, "monitor": "validation/coco_box_map"},
        },
        {"best": {**BEST, "monitor": "train/loss"}},
        {"best": {**BEST, "monitor": None}},
        {"best": {**BEST, "monitor": "mine"}, "mine": {"_target_": "my.callbacks.Mine"}},
        {
            **evaluator(mine={"_target_": "my.metrics.Mine"}),
            "best": {**BEST, "monitor": "validation/mine"},
        },
        {"best": None},
    ],
)
def test_scores_that_may_be_monitored(callbacks: dict) -> None:
    check_monitors(callbacks, {"limit_val_batches": 1.0})


def hydra_of(mode: RunMode, launcher: str) -> Any:
    return OmegaConf.create({"mode": mode, "launcher": {"_target_": launcher}})


BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
SLURM = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"


def test_multirun_on_several_devices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hydra = hydra_of(RunMode.MULTIRUN, BASIC)
    monkeypatch.setattr(HydraConfig, "get", lambda: hydra)
    message = r"-m with trainer\.devices=2: .*one run at a time.*hydra/launcher=submitit_slurm"
    with pytest.raises(InputError, match=message):
        check_multirun(trainer(devices=2))
    check_multirun(trainer(devices=1))


@pytest.mark.parametrize(("mode", "launcher"), [(RunMode.RUN, BASIC), (RunMode.MULTIRUN, SLURM)])
def test_what_multirun_allows(
    mode: RunMode, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hydra = hydra_of(mode, launcher)
    hydra.launcher.update(tasks_per_node=2, nodes=1)
    monkeypatch.setattr(HydraConfig, "get", lambda: hydra)
    check_multirun(trainer(devices=2))


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        (RunMode.RUN, {}, "hydra/launcher starts the jobs of -m, got no -m"),
        (RunMode.MULTIRUN, {}, r"launcher\.tasks_per_node must be 2, as trainer\.devices, got 1: "),
        (RunMode.MULTIRUN, {"tasks_per_node": 2, "nodes": 3}, r"\.nodes must be 1, as .*, got 3"),
    ],
)
def test_a_launcher_starts_as_many_processes_as_there_are_devices(
    mode: RunMode, options: dict[str, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hydra = hydra_of(mode, SLURM)
    hydra.launcher.update(options)
    monkeypatch.setattr(HydraConfig, "get", lambda: hydra)
    with pytest.raises(InputError, match=message):
        check_multirun(trainer(devices=2))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trainer.devicess=2"], "unknown key trainer.devicess; near ones: trainer.devices"),
        (["+trainer.devicess=2"], "unknown key trainer.devicess; near ones: trainer.devices"),
        (["+datamodule.batch_sizes=2"], "unknown key datamodule.batch_sizes; near ones: datamodul"),
        (["module=htc_x102"], "htc_tiny or htc_x101_dcn, got htc_x102"),
        (["trainer.max_epochs=[1"], "no viable alternative at input"),
        (["datamodule.train_short_edge_px=[64,48]"], "train_short_edge_px must be one or two who"),
        (["datamodule.batch_size=14"], "training images with instances, got 14"),
        (["datamodule.num_validation_images=16"], "num_validation_images must be from 1 to 15, "),
        (["resume=no.ckpt"], "got no.ckpt: no such file"),
        (
            ["initial_weights=no.pth"],
            "initial_weights must be a file of weights, got no.pth: no such file; ",
        ),
        (
            ["trainer.precision=bf61"],
            "trainer.precision must be one of 32-true, 16-mixed, bf16-mixed, got bf61",
        ),
        (["competition=dsb_2018"], "competition.columns must have ClassId or CategoryId for "),
        (
            ["-m", "hydra.sweep.subdir=x", "seed=1,2", "trainer.devices=2"],
            "-m with trainer.devices=2",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    arguments: list[str],
    line: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    base = [
        o for o in overrides(images, tmp_path) if o.split("=")[0] != arguments[-1].split("=")[0]
    ]
    command = [*arguments, *base, f"hydra.run.dir={tmp_path}", f"hydra.sweep.dir={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["train.py", *command, f"datamodule.split_file={tmp_path}/s"])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2
    assert error.startswith("error: ")
    assert line in error


def test_out_of_memory_names_the_images_and_what_to_lower(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(CascadeModule, "training_step", run_out)
    message = (
        r"^out of GPU memory in training, step 0; images of the batch \(height x width, "
        r"instances\): \d+x\d+ \(\d+\), \d+x\d+ \(\d+\); lower datamodule\.batch_size, "
        r"train_short_edge_px, train_long_edge_px, or give trainer\.precision=bf16-mixed$"
    )
    with pytest.raises(InputError, match=message):
        run(images, tmp_path)


def test_sizes_of_a_batch() -> None:
    assert describe_batch(make_batch()) == "96x80 (3), 64x96 (3)"
    assert describe_batch(make_batch(with_objects=False)) == "96x80, 64x96"


def test_out_of_memory_in_validation_names_its_own_keys() -> None:
    advice = MemoryAdvice()
    assert advice.message().startswith("out of GPU memory in making the model; lower datamodule.b")
    advice.on_validation_batch_start(None, None, make_batch(with_objects=False), 0)  # type: ignore[arg-type]
    expected = r"in validation; images .*: 96x80, 64x96; lower datamodule\.predict_batch_size, pred"
    with pytest.raises(InputError, match=expected):
        raise InputError(advice.message())


def test_ctrl_c_says_how_to_go_on(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CascadeModule, "training_step", interrupt)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # Lightning turns Ctrl-C off for good
    monkeypatch.setattr("src.processes._state.is_said", False)
    monkeypatch.setattr("src.processes.received_signal", lambda: signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        run(images, tmp_path)
    assert ended.value.code == 130
    expected = "stopped at step 0; there is no checkpoint yet, so the same command starts from the"
    assert expected in capfd.readouterr().err


@pytest.mark.parametrize(
    ("resume", "files", "expected"),
    [
        (
            "auto",
            [],
            r"^there is no checkpoint yet, so the same command starts from the beginning$",
        ),
        ("auto", ["epoch_00.ckpt"], r"^the same command resumes from the last checkpoint in "),
        ("never", [], r"^the same command starts from the beginning, because of resume=never$"),
        (
            "never",
            ["last.ckpt"],
            r"starts from the beginning, because of resume=never; resume=auto resumes from",
        ),
        ("x/a.ckpt", [], r"^the same command starts again from x/a\.ckpt, because of resume=x/a"),
    ],
)
def test_what_the_same_command_does_next(
    resume: str, files: list[str], expected: str, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert re.search(expected, describe_next_start(resume=resume, directory=tmp_path))


def test_a_run_without_loggers(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path, "~logger", "trainer.max_steps=2")
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert not (tmp_path / "csv").exists()


def test_other_images_than_the_checkpoints_are_refused(images: Path, tmp_path: Path) -> None:
    steps = ("trainer.max_epochs=1", "trainer.limit_val_batches=0")
    run(images, tmp_path / "run", *steps)
    with pytest.raises(InputError, match="images must be the 13 of the checkpoint, got 12 others"):
        run(
            images,
            tmp_path / "run",
            "datamodule.num_validation_images=4",
            f"datamodule.split_file={tmp_path / 'split.json'}",
        )
    with pytest.raises(InputError, match="must be 2 images a step, as in the checkpoint, got 4: "):
        run(images, tmp_path / "run", "datamodule.batch_size=4")
    with pytest.raises(InputError, match=r"optimizer\.lr: 0\.0005 then, 0\.1 now"):
        run(images, tmp_path / "run", "optimizer.lr=0.1")


# As Lightning 2.6 and torch 2.13 word them.
OF_OTHERS = (
    "Checkpoint directory /x/checkpoints exists and is not empty.",
    "Found 60 module(s) in eval mode at the start of training. This may lead to unexpected "
    "behavior during training. If this is intentional, you can ignore this warning.",
    "GPU available but not used. You can set it by doing `Trainer(accelerator='gpu')`.",
    "The 'train_dataloader' does not have many workers which may be a bottleneck. Consider "
    "increasing the value of the `num_workers` argument` to `num_workers=3` in the `DataLoader`",
    "This DataLoader will create 4 worker processes in total. Our suggested max number of worker "
    "in current system is 1, which is smaller than what this DataLoader is going to create.",
)


def test_advertisements_are_left_out() -> None:
    silence_lightning()
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        log.warning(
            "💡 Tip: For seamless cloud uploads and versioning, try installing [litmodels](x)"
        )
        log.warning("GPU available: False, used: False")
        log.warning("GPU available: True, used: True")
    finally:
        log.removeHandler(handler)
    assert seen == ["GPU available: True, used: True"]
    with warnings.catch_warnings(record=True) as caught:
        silence_lightning()
        for text in OF_OTHERS:
            warnings.warn(text, stacklevel=1)
        warnings.warn("The 'train_dataloader' has no batch.", stacklevel=1)
    assert [str(one.message) for one in caught] == ["The 'train_dataloader' has no batch."]


def test_first_weights_of_a_backbone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "backbone.safetensors"
    overrides = (*SMALL, f"module.backbone_weights={path}")
    module = instantiate(compose_module("htc_tiny", *overrides).module)
    with caplog.at_level(logging.INFO):
        start_from(module, None)
    (line,) = [record.message for record in caplog.records]
    assert line.startswith(f"module.backbone_weights={path}: no such file, so the backbone starts")
    assert "`make weights`" in line
    own = {name: v.clone() for name, v in module.detector.state_dict().items()}
    given = {name: v + 1 for name, v in own.items() if name.startswith("backbone.")}
    save_weights(given, path)
    for initial_weights, name in (
        (None, "module.backbone_weights"),
        (str(path), "initial_weights"),
    ):
        caplog.clear()
        module.detector.load_state_dict(own)
        with caplog.at_level(logging.INFO):
            start_from(module, initial_weights)
        counts = (
            f"{len(given)} tensors of the model came from the file, {len(own) - len(given)} are"
        )
        assert [record.message for record in caplog.records] == [
            f"{name}={path}: {counts} random, drawn from the seed"
        ]
        now = module.detector.state_dict()
        assert all(torch.equal(now[name], given.get(name, value)) for name, value in own.items())
    save_weights(given | {"backbone.conv1.weight": torch.zeros(3, 3, 3, 3)}, path)
    with pytest.raises(InputError, match=r"is backbone\.conv1\.weight, \(3, 3, 3, 3\) in the file"):
        start_from(module, None)
    save_weights(own, path)
    with pytest.raises(
        InputError, match=r"module\.backbone_weights must be a file of .*scope=back"
    ):
        start_from(module, None)
