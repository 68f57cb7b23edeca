"""The doctor's checks on given values, and the command where packages are missing or broken."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from src.cli import diagnosis
from src.cli.data_diagnosis import check_annotations, check_images, check_weights
from src.cli.diagnosis import Finding
from src.doctor import main
from tests.helpers.configs import compose_config

LOADER = {"num_workers": 4, "prefetch_factor": 2}


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "src.doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10, 9), "error"), ((3, 11, 0), "ok"), ((3, 13, 2), "ok"), ((3, 14, 0), "error")],
)
def test_python(version: tuple[int, int, int], status: str) -> None:
    finding = diagnosis.check_python(version, is_own=True)
    assert finding.status == status
    assert ("make setup PYTHON=python3.12" in finding.remedy) == (status == "error")


def test_another_environment_is_a_warning() -> None:
    finding = diagnosis.check_python((3, 12, 0), is_own=False)
    assert (finding.status, "source .venv/bin/activate" in finding.remedy) == ("warning", True)


def test_versions_are_compared_with_the_pins() -> None:
    pins = {"torch": {"2.13.0"}, "numpy": {"2.4.6"}, "rich": {"15.0.0", "14.1.0"}, "wandb": {"1"}}
    installed = {"torch": "2.13.0+cpu", "numpy": "1.26.0", "rich": "14.1.0"}
    lines = list(map(str, diagnosis.check_packages(list(pins), pins, installed)))
    assert lines == [
        "warning  numpy                   1.26.0, where 2.4.6 is pinned and tested -> make setup",
        "ok       torch                   2.13.0+cpu",
        "error    wandb                   not installed (1 is pinned) -> make setup",
        "ok       other packages          1 as pinned",
    ]


def test_a_package_over_ours_is_an_error() -> None:
    installed = {"onedl-mmcv": "2.3.6", "mmcv": "2.1.0"}
    *_, clash = diagnosis.check_packages(["onedl-mmcv"], {"onedl-mmcv": {"2.3.6"}}, installed)
    assert clash.status == "error"
    assert clash.value == "2.1.0 is installed over onedl-mmcv, under the same import name"


def test_this_environment_has_what_is_pinned() -> None:
    needed, pins = diagnosis.read_needed(), diagnosis.read_pins()
    assert {"torch", "onedl-mmcv", "wandb"} <= set(needed) <= pins.keys()
    findings = diagnosis.check_packages(needed, pins, diagnosis.installed_versions())
    assert {finding.status for finding in findings} == {"ok"}


TORCH = {"version": "2.13.0+cu130", "cuda": "13.0", "problem": None, "devices": [], "threads": 2}
H100 = {"name": "NVIDIA H100", "memory_gib": 79.1, "capability": "9.0", "is_supported": True}


@pytest.mark.parametrize(
    ("torch", "driver", "status", "text"),
    [
        ({"devices": [H100]}, "580.65", "ok", "580.65"),
        ({"problem": "no driver"}, None, "ok", "none: a CPU trains"),
        ({"cuda": None, "problem": "x"}, "580.65", "warning", "(without TORCH=cpu)"),
        ({"problem": "driver too old\nmore"}, "470.1", "error", "cannot use it: driver too old ->"),
        ({}, "580.65", "error", "cannot use it: torch finds no device -> a driver for CUDA 13.0"),
    ],
)
def test_driver_and_torch(
    torch: dict[str, Any], driver: str | None, status: str, text: str
) -> None:
    findings = {one.what: one for one in diagnosis.check_devices(TORCH | torch, driver=driver)}
    assert findings["NVIDIA driver"].status == status
    assert text in str(findings["NVIDIA driver"])
    assert ("GPU 0" in findings) == ("devices" in torch)


def test_a_gpu_that_torch_has_no_code_for() -> None:
    old = {**H100, "name": "Tesla K80", "capability": "3.7", "is_supported": False}
    *_, gpu, _threads = diagnosis.check_devices(TORCH | {"devices": [old]}, driver="580.65")
    assert str(gpu).startswith("error    GPU 0                   Tesla K80, 79 GiB, sm 3.7: this")


def test_operators_of_a_compiled_mmcv() -> None:
    found = {"operators": {"found": {"compiled": "/x/mmcv/_ext.so", "supplied": []}}}
    (finding,) = diagnosis.check_imports(found, driver=None)
    assert (finding.status, finding.value) == ("ok", "compiled mmcv: /x/mmcv/_ext.so")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("OSError: libGL.so.1: cannot open shared object file", "package of libGL.so.1"),
        ("ended the interpreter by SIGILL", "lacks instructions"),
        ("RuntimeError: CUDA error: no kernel image is available", "trainer=cpu"),
        ("ImportError: x do not load with torch 2.13", "make setup"),
        ("ModuleNotFoundError: No module named 'torch'", "make setup"),
    ],
)
def test_each_failed_import_has_a_remedy(error: str, remedy: str) -> None:
    (finding,) = diagnosis.check_imports({"operators run": {"error": error}}, driver=None)
    assert (finding.status, finding.value) == ("error", error)
    assert remedy in finding.remedy


def test_cpus() -> None:
    assert diagnosis.check_cpus(8, num_workers=4, devices=1).status == "ok"
    few = diagnosis.check_cpus(8, num_workers=4, devices=8)
    assert (few.status, few.remedy) == ("warning", "datamodule.num_workers=0")


@pytest.mark.parametrize(("text", "most"), [("max 100000", None), ("100000 100000", 1), ("", None)])
def test_a_containers_quota_counts(tmp_path: Path, text: str, most: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert diagnosis.count_cpus(tmp_path / "cpu.max") == (most or len(os.sched_getaffinity(0)))


def test_shared_memory_of_docker_is_too_small() -> None:
    batch = {"batch_bytes": 2 * 3 * 1200 * 1900, "devices": 1}
    finding = diagnosis.check_shared_memory(64 * 2**20, **LOADER, **batch)
    assert str(finding) == (
        "error    shared memory           64 MiB free in /dev/shm, 117 MiB for 9 batches -> "
        "docker run --shm-size=1g (or --ipc=host), or datamodule.num_workers=0"
    )
    assert diagnosis.check_shared_memory(2**30, **LOADER, **batch).status == "ok"
    assert diagnosis.check_shared_memory(None, **LOADER, **batch).status == "ok"
    none = {"num_workers": 0, "prefetch_factor": 2}
    assert diagnosis.check_shared_memory(0, **none, **batch).status == "ok"


@pytest.mark.parametrize(
    ("soft", "hard", "status", "remedy"),
    [
        (1024, 4096, "ok", ""),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, "ok", ""),
        (64, 4096, "error", "ulimit -n 328, in this shell"),
        (64, resource.RLIM_INFINITY, "error", "ulimit -n 328, in this shell"),
        (64, 64, "error", "--ulimit nofile=65536"),
    ],
)
def test_open_files(soft: int, hard: int, status: str, remedy: str) -> None:
    finding = diagnosis.check_open_files(soft, hard, **LOADER, batch_size=2)
    assert finding.status == status
    assert remedy in finding.remedy


def test_disk(tmp_path: Path) -> None:
    place = tmp_path / "not" / "there"
    assert diagnosis.check_disk("d", place, min_free_gib=1e-9, problem=None).status == "ok"
    full = diagnosis.check_disk("d", place, min_free_gib=1e9, problem=None)
    assert full.status in ("warning", "error")
    assert full.remedy == "free some space: under min_free_gib=1e+09"
    denied = diagnosis.check_disk("d", place, min_free_gib=1, problem="Permission denied")
    assert (denied.status, denied.value) == ("error", f"{place}: Permission denied")


def test_wandb_shows_no_key() -> None:
    online = diagnosis.check_wandb("0.31", {"WANDB_API_KEY": "secret"})
    assert "online" in online.value
    assert "secret" not in str(online)
    assert "offline" in diagnosis.check_wandb("0.31", {}).value
    assert "disabled" in diagnosis.check_wandb("0.31", {"WANDB_MODE": "disabled"}).value
    assert diagnosis.check_wandb(None, {}).status == "warning"
    assert "export WANDB_API_KEY" in diagnosis.check_wandb("1", {}, has_login=True).remedy


def test_wandb_login_is_found(tmp_path: Path) -> None:
    assert not diagnosis.has_wandb_login(tmp_path / "netrc")
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    assert diagnosis.has_wandb_login(tmp_path / "netrc")


def test_what_is_named_must_be_there_and_the_usual_may_be_missing(tmp_path: Path) -> None:
    for check in (check_annotations, check_images):
        assert check(tmp_path / "none", is_given=False).status == "warning"
        assert check(tmp_path / "none", is_given=True).status == "error"


def test_data(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": []}')
    finding = check_annotations(tmp_path / "a.json", is_given=True)
    assert (finding.status, "coco" in finding.value) == ("ok", True)
    (tmp_path / "b.csv").write_text("")
    assert check_annotations(tmp_path / "b.csv", is_given=True).status == "error"
    folder = tmp_path / "images"
    folder.mkdir()
    assert "no image in it" in check_images(folder, is_given=True).value
    Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(folder / "x.png")
    assert check_images(folder, is_given=True).value.endswith("1 images, the first 5x3")
    (folder / "a.png").write_bytes((folder / "x.png").read_bytes()[:40])
    assert check_images(folder, is_given=True).status == "error"


def test_weights(tmp_path: Path) -> None:
    whole = tmp_path / "a.safetensors"
    save_file({"x": np.zeros(100, np.float32)}, whole)
    content = whole.read_bytes()
    cases = {
        "cut": (content[:-1], "error", "where its header says"),
        "empty": (b"", "error", "damaged header"),
        "long": (b"\xff" * 8 + content[8:], "error", "damaged header"),
        "list": ((2).to_bytes(8, "little") + b"[]", "error", "damaged header"),
        "odd": ((7).to_bytes(8, "little") + b'{"a":1}', "error", "damaged header"),
        "whole": (content, "ok", "1 tensors, 0.0 MiB"),
    }
    for name, (data, status, text) in cases.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        (finding,) = check_weights([str(path)], {})
        assert (finding.status, text in finding.value) == (status, True), finding
    (tmp_path / "a.ckpt").write_bytes(b"no zip")
    (finding,) = check_weights([str(tmp_path / "a.ckpt")], {})
    assert finding.value.endswith("no file of torch 1.6 or newer")
    (finding,) = check_weights(None, {tmp_path / "none": "make weights"})
    assert (finding.status, finding.remedy) == ("warning", "make weights")


def test_a_line_has_no_control_characters() -> None:
    assert "\x1b" not in str(Finding("ok", "images", "a\x1b[31m\n"))
    assert str(Finding("ok", "images", "a\x1b")).endswith("a\\x1b")


def test_values_of_the_loader_are_those_of_training() -> None:
    ours, datamodule = compose_config("doctor", []), compose_config("train", []).datamodule
    for key in ("num_workers", "prefetch_factor", "batch_size"):
        assert ours[key] == datamodule[key]
    assert list(ours.train_short_edge_px) == list(datamodule.train_short_edge_px)
    assert ours.train_long_edge_px == datamodule.train_long_edge_px


def test_command_writes_json_and_ends_with_0_or_1(
    call_program: Callable[..., Any], tmp_path: Path
) -> None:
    ended = call_program(main, "imports=false", "output=a.json", "weights=[gone.ckpt]")
    assert ended.code == 1
    found = json.loads((tmp_path / "a.json").read_text())
    errors = [one for one in found if one["status"] == "error"]
    assert errors == [
        {
            "status": "error",
            "what": "weights",
            "value": "gone.ckpt: no such file",
            "remedy": "weights=[FILE,...]",
        }
    ]
    assert ended.out.splitlines()[-1].startswith("1 error, ")
    assert call_program(main, "imports=false").code == 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("num_workers=-1", "num_workers must be a whole number of at least 0, got -1"),
        ("weights=a.ckpt", "weights must be a list of files, or null"),
        ("min_free_gib=nan", "min_free_gib must be a finite number above 0, got nan"),
        ("train_short_edge_px=5", "train_short_edge_px must be "),
    ],
)
def test_mistakes(call_program: Callable[..., Any], argument: str, message: str) -> None:
    ended = call_program(main, argument)
    assert ended.code == 2
    assert message in ended.err


def fake_package(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


def test_without_hydra_and_with_a_torch_that_crashes(tmp_path: Path) -> None:
    fake_package(tmp_path, "hydra", "raise ImportError('broken: by a test')")
    fake_package(tmp_path, "torch", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    ended = doctor(PYTHONPATH=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (1, "")
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("error    commands                cannot start (ImportError: broken")
    assert any("import torch " in line and "by SIGILL -> this CPU lacks" in line for line in lines)
    assert "error    import mmdet            not tried without operators -> see there" in lines


@pytest.mark.parametrize("name", ["numpy", "PIL", "yaml", "omegaconf", "rich"])
def test_with_a_broken_package(tmp_path: Path, name: str) -> None:
    fake_package(tmp_path, name, "raise OSError('libfoo.so.1: cannot open shared object file')")
    fake_package(tmp_path, "torch", "raise OSError('libbar.so: cannot open shared object file')")
    ended = doctor(PYTHONPATH=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "libfoo.so.1" in ended.stdout
    assert "install the system's package of libbar.so" in ended.stdout


def test_an_import_that_never_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(tmp_path, "torch", "print('noise'); import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = diagnosis.run_probe(["torch", "torchvision"], timeout_s=2)
    assert found["torch"] == {"error": "did not return within 2 s"}
    assert found["torchvision"] == {"skipped": "torch"}


def test_few_open_files_end_in_findings() -> None:
    command = f"ulimit -n 64; exec {sys.executable} -m src.doctor imports=false"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "error    open files              64 at most (ulimit -n)" in ended.stdout


@pytest.mark.slow
def test_this_machine_is_fine() -> None:
    ended = doctor()
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert "NMS and RoIAlign are right on cpu" in ended.stdout
