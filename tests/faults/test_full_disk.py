"""A disk that is full: the file is named, nothing is half-written, nothing is lost."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from src.annotations.conversion import convert
from src.callbacks.checkpoints import AtomicCheckpointIO
from src.datamodules.split import Split, write_split
from src.errors import WriteError, describe_disk_error, find_disk_error
from src.mmdet_bridge.checkpoints.reading import save_weights
from src.synthetic import synthesize_csv
from src.tuning.trial_storage import TrialFile
from tests.helpers.stores import make_images, write_store

PROJECT = Path(__file__).parents[2]
SIZE_KIB = 128


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KIB}k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotations")
    synthesize_csv(folder, 80)
    return folder / "train.csv"


def fill(folder: Path) -> None:
    with (folder / "others").open("wb") as file:
        file.write(b"x" * (SIZE_KIB - 4) * 1024)


def write_checkpoint(folder: Path) -> None:
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.zeros(10**5)}}, folder / "o")


WRITERS: dict[str, Callable[[Path], None]] = {
    "checkpoint": write_checkpoint,
    "weights": lambda folder: save_weights({"w": torch.zeros(10**5)}, folder / "o.safetensors"),
    "JSON": lambda folder: write_split(
        Split(validation=("a" * 10**5,), train=("b" * 10**5,), seed=0, annotations="c"),
        folder / "o",
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_does_not_fit_is_named_with_its_size(small: Path, kind: str) -> None:
    with pytest.raises(WriteError, match=r"No space left on device: '.*/o") as caught:
        WRITERS[kind](small)
    line = str(describe_disk_error(caught.value))
    free = rf"\({SIZE_KIB}\.0 KiB free in {small}, it takes \d+\.\d KiB\)"
    assert line.startswith(f"{small}/o")
    assert re.search(free, line)
    assert line.endswith("run the same command again, it resumes from what is done")
    assert [path.name for path in small.iterdir()] == []


def test_the_old_file_stays(small: Path) -> None:
    path = small / "o"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.zeros(10)}}, path)
    before = path.read_bytes()
    with pytest.raises(WriteError, match=r"No space left on device: '.*/o"):
        write_checkpoint(small)
    assert path.read_bytes() == before
    assert [path.name for path in small.iterdir()] == ["o"]


@pytest.mark.parametrize("name", ["o.json", "o.csv", "o.store"])
def test_a_conversion_that_does_not_fit(small: Path, annotations: Path, name: str) -> None:
    fill(small)
    with pytest.raises(WriteError, match=rf"No space left on device: '{small}/{name}'"):
        convert(annotations, small / name)
    assert [path.name for path in small.iterdir()] == ["others"]


def test_predictions_that_do_not_fit_leave_the_shards_before_them(small: Path) -> None:
    images = make_images(0, 200)
    with pytest.raises(WriteError, match=r"'.*/small/rank00000_shard000\d\d\.arrow'"):
        write_store(small, images, images_per_shard=2)
    assert list(small.glob("*_shard*.arrow"))
    assert not list(small.glob(".*.part"))


def test_a_search_that_does_not_fit(small: Path) -> None:
    fill(small)
    with pytest.raises(WriteError, match=rf"No space left on device: '{small}/search\.db'"):
        TrialFile(small / "search.db", identity={"a": 1})


def test_errors_of_libraries_are_recognised(small: Path) -> None:
    fill(small)

    def write() -> None:
        np.zeros(10**6).tofile(small / "array")

    with pytest.raises(OSError, match=r"requested and \d+ written") as caught:
        write()
    assert find_disk_error(caught.value) is not None


def test_a_command_ends_with_one_line_and_exit_code_2(small: Path) -> None:
    command = [sys.executable, "-m", "src.synthesize", f"output={small}/drawn", "num_workers=2"]
    size = ["num_train_images=40", "num_test_images=1", "image_size=256"]
    result = subprocess.run(
        [*command, *size], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert f"error: {small}/drawn/" in errors[0]
    assert "Traceback" not in result.stderr
    kept = {path: path.read_bytes() for path in small.glob("drawn/train/*.jpg")}
    subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
    again = subprocess.run([*command, *size], cwd=PROJECT, capture_output=True, check=False)
    assert again.returncode == 0
    assert len(list(small.glob("drawn/train/*.jpg"))) == 40
    assert {path: path.read_bytes() for path in kept} == kept
