"""The set-up with and without what only a GPU uses, and the container made by its steps."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
UV = """#!/bin/sh
echo "$@" >> uv.log
echo "$UV_COMPILE_BYTECODE" > compiles.txt
case "$1 $2" in
  venv*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "pip sync") cp .make/pins.txt synced.txt ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")


def make(
    folder: Path, *arguments: str, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    # of the make that may run these tests, which would print the folders that it enters
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "UV_COMPILE_BYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the environment is made from, with a stand-in for uv in bin/."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    shutil.copytree(PROJECT / "requirements", tmp_path / "requirements")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_text(UV)
    (tmp_path / "bin" / "uv").chmod(0o755)
    return tmp_path


def pins(text: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))


def set_up(checkout: Path, *arguments: str) -> set[str]:
    ended = make(checkout, "setup", *arguments, path=checkout / "bin")
    assert ended.returncode == 0, ended.stderr
    return pins((checkout / "synced.txt").read_text())


def test_all_pins_are_installed_by_default(checkout: Path) -> None:
    everything = (checkout / "requirements" / "requirements.txt").read_text()
    assert set_up(checkout) == pins(everything)
    assert (checkout / "synced.txt").read_text() == everything
    assert "pip sync --quiet --require-hashes" in (checkout / "uv.log").read_text()
    assert (checkout / "compiles.txt").read_text() == "1\n"


def test_cpu_leaves_out_what_only_a_gpu_uses(checkout: Path) -> None:
    everything = pins((checkout / "requirements" / "requirements.txt").read_text())
    left_out = everything - set_up(checkout, "TORCH=cpu")
    assert left_out == {
        *("triton", "cuda-bindings", "cuda-pathfinder", "cuda-toolkit"),
        *("nvidia-cusolver", "nvidia-nvtx"),
    }
    assert (checkout / ".venv" / ".installed-cpu").exists()
    (checkout / "uv.log").unlink()
    ended = make(checkout, "setup", path=checkout / "bin")  # keeps the choice
    assert (ended.returncode, (checkout / "uv.log").exists()) == (0, False)
    assert "triton" in set_up(checkout, "TORCH=cuda")  # and changes it when asked
    assert not (checkout / ".venv" / ".installed-cpu").exists()


def test_cpu_from_an_index_of_ones_own(checkout: Path) -> None:
    own = "https://example.org/cpu"
    found = set_up(checkout, "TORCH=cpu", f"TORCH_INDEX={own}")
    assert not {
        name for name in found if name.startswith(("nvidia", "torch", "triton", "cuda"))
    } - {"torchmetrics"}
    last = (checkout / "uv.log").read_text().splitlines()[-1]
    assert "--no-deps" in last
    option, index, *packages = last.split()[-4:]
    assert option == "--index-url"
    assert index == own
    assert [package.partition("==")[0] for package in packages] == ["torch", "torchvision"]


def test_other_values_of_torch_are_refused(checkout: Path) -> None:
    ended = make(checkout, "setup", "TORCH=gpu", path=checkout / "bin")
    assert ended.returncode != 0
    assert "TORCH must be cpu or cuda, got gpu" in ended.stderr


def test_the_image_is_made_by_the_steps_of_make_setup() -> None:
    steps = re.sub(r"\\\n\s*", "", DOCKERFILE)
    assert 'make setup TORCH="$TORCH" TORCH_INDEX="$TORCH_INDEX"' in steps
    assert "pip install" not in steps
    copied = re.findall(r"^COPY --chown=user (.+)$", steps, re.MULTILINE)
    assert copied == ["Makefile pyproject.toml ./", "requirements requirements", ". ."]
    users = re.findall(r"^USER (\w+)$", steps, re.MULTILINE)
    assert users == ["user"]
    assert steps.index("USER user") < steps.index("make setup TORCH")
    for argument in ("TORCH=cuda", "TORCH_INDEX=", "USER_ID=1000"):
        assert f"\nARG {argument}\n" in DOCKERFILE


def test_nothing_large_or_private_goes_into_the_image() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", "data", "outputs", "multirun", "wandb"} <= set(ignored)


def expanded(target: str, *arguments: str) -> str:
    ended = make(PROJECT, "-n", target, *arguments)
    assert ended.returncode == 0, ended.stderr
    return " ".join(ended.stdout.replace("\\\n", " ").split())


def test_commands_of_the_container() -> None:
    build = expanded("docker-build", "TORCH=cpu")
    assert (
        "docker build --build-arg TORCH=cpu --build-arg TORCH_INDEX= --build-arg USER_ID=" in build
    )
    assert "USER_ID=0 " not in build
    assert build.endswith("--tag instance-cascade:cpu .")
    run = expanded("docker-run", "TORCH=cuda", "COMMAND=python -m src.train")
    assert "--gpus all --shm-size 8g" in run
    assert f'--volume "{PROJECT}/data:/app/data" --volume "{PROJECT}/outputs:/app/outputs"' in run
    assert run.endswith("instance-cascade:cuda python -m src.train")
    assert "--gpus" not in expanded("docker-run", "TORCH=cpu")
    assert expanded("docker-exec").endswith("instance-cascade bash")
    assert expanded("docker-exec", "COMMAND=nvidia-smi").endswith("instance-cascade nvidia-smi")


def docker_works() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=60).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_image_builds_and_runs(tmp_path: Path) -> None:
    """``DOCKER_OPTIONS`` of the environment reaches Docker, such as ``--network host``."""
    if not docker_works():
        pytest.skip("no Docker daemon here")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(clone)], check=True)
    image = ("TORCH=cpu", "IMAGE=instance-cascade-test")
    built = make(clone, "docker-build", *image)
    assert built.returncode == 0, built.stderr[-2000:]
    doctor = make(clone, "docker-run", *image, "COMMAND=bash -c 'id -u && python -m src.doctor'")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert doctor.stdout.splitlines()[0] != "0"
    assert "NMS and RoIAlign are right on cpu" in doctor.stdout
    synthesize = "python -m src.synthesize output=data num_train_images=4 num_test_images=1"
    drawn = make(clone, "docker-run", *image, f"COMMAND={synthesize}")
    assert drawn.returncode == 0, drawn.stdout + drawn.stderr
    assert len(list((clone / "data" / "train").iterdir())) == 4  # in the mounted folder

    started = subprocess.Popen(
        ["make", "docker-run", *image, "COMMAND=sleep 600"],
        cwd=clone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(60):
            inside = make(clone, "docker-exec", *image, "COMMAND=ls data/train.csv")
            if inside.returncode == 0:
                break
            time.sleep(1)
        assert inside.stdout.strip() == "data/train.csv"
    finally:
        subprocess.run(["docker", "kill", "instance-cascade-test"], capture_output=True)
        started.wait(60)
