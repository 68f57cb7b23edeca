"""Data on a read-only disk, and outputs on one that is read-only or full, as the disk has them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.annotations.formats import ReadingOptions
from src.annotations.store_builder import open_or_build
from src.average import main as average
from src.cli.postprocess import main as postprocess
from src.convert import main as convert
from src.datamodules.datamodule import CompetitionDataModule
from src.errors import InputError, WriteError
from src.export_coco import main as export_coco
from src.fuse import main as fuse
from src.import_weights import main as import_weights
from src.io import check_writable
from src.metrics.scoring import open_ground_truth
from src.predict import main as predict
from src.report import main as report
from src.score import main as score
from src.search import main as search
from src.split import main as split
from src.synthesize import main as synthesize
from src.train import main as train
from tests.helpers.annotation_files import HEADER_2019, objects_of, write_lines
from tests.helpers.runs import run as run_training

Lock = Callable[[Path], None]


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")


@pytest.fixture
def lock() -> Iterator[Lock]:
    """Make a folder read-only until the test ends: by its mode, or for root, by mounting it so."""
    locked: list[Path] = []

    def make_read_only(folder: Path) -> None:
        if os.geteuid() == 0:
            mount("--bind", str(folder), str(folder))
            locked.append(folder)
            mount("-o", "remount,ro,bind", str(folder))
        else:
            locked.append(folder)
            folder.chmod(0o555)

    yield make_read_only
    for folder in locked:
        if os.geteuid() == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        else:
            folder.chmod(0o755)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk without a free byte."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder))
    try:
        with (folder / "filling").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four images with an object each."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for name in "abcd":
        Image.new("RGB", (40, 30)).save(folder / "images" / f"{name}.png")
    rows = [f"{name}.png,1 200,30,40,{number}" for number, name in enumerate("abcd")]
    write_lines(folder / "train.csv", HEADER_2019, *rows)
    return folder


def datamodule_of(data: Path, run_directory: Path) -> CompetitionDataModule:
    datamodule = CompetitionDataModule(
        annotations=str(data / "train.csv"),
        images=str(data / "images"),
        split_file=str(data / "split.json"),
        num_validation_images=1,
        split_seed=0,
        cache_dir=str(data / ".cache"),
    )
    datamodule.fallback_directory = run_directory
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def test_cache_and_split_of_read_only_data_lie_in_the_runs_folder(
    data: Path, tmp_path: Path, lock: Lock, caplog: pytest.LogCaptureFixture
) -> None:
    lock(data)
    with caplog.at_level(logging.INFO):
        datamodule = datamodule_of(data, tmp_path / "run")
    assert len(datamodule.train_dataset) == 3
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".cache", "split.json"]
    assert sorted(path.name for path in data.iterdir()) == ["images", "train.csv"]
    said = caplog.text
    assert said.count(f"{data}/.cache cannot be written (") == 1
    assert f"what is read of the annotations is kept in {tmp_path}/run/.cache" in said
    assert f"{data}/split.json cannot be written (" in said
    assert f"the split is made in {tmp_path}/run/split.json" in said
    again = datamodule_of(data, tmp_path / "run")  # and they are found there
    assert again.split == datamodule.split
    assert len(list((tmp_path / "run" / ".cache").glob("*.store"))) == 1


def test_a_cache_that_is_there_is_used_where_it_is(data: Path, tmp_path: Path, lock: Lock) -> None:
    options: dict[str, Any] = {"images_directory": data / "images"}
    wanted = open_or_build(data / "train.csv", data / ".cache", ReadingOptions(**options))
    os.utime(data / "images" / "a.png", ns=(1, 1))
    lock(data)
    built: list[Any] = []
    store = open_or_build(
        data / "train.csv",
        data / ".cache",
        ReadingOptions(**options),
        fallback_directory=tmp_path / "elsewhere",
        on_built=built.append,
    )
    assert (store.directory, built) == (wanted.directory, [])
    assert objects_of(store) == objects_of(wanted)
    assert not (tmp_path / "elsewhere").exists()


def test_a_damaged_cache_on_a_read_only_disk_is_built_elsewhere(
    data: Path, tmp_path: Path, lock: Lock
) -> None:
    store = open_or_build(data / "train.csv", data / ".cache")
    (store.directory / "store.json").unlink()
    lock(data)
    with pytest.raises(InputError, match=r"^cache_dir must be a folder to write to, got .*"):
        open_or_build(data / "train.csv", data / ".cache")
    again = open_or_build(
        data / "train.csv", data / ".cache", fallback_directory=tmp_path / "elsewhere"
    )
    assert again.directory.parent == tmp_path / "elsewhere"


def test_tools_keep_the_truth_in_the_users_cache(
    data: Path, tmp_path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    lock(data)
    with open_ground_truth(data / "train.csv", cache_dir=data / ".cache") as ground_truth:
        assert len(ground_truth) == 4
    assert len(list((tmp_path / "home" / "instance-cascade").glob("train-*.store"))) == 1


def files_in(folder: Path) -> list[Path]:
    """Every file but the lock of who is at work."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if not path.name.endswith(".lock"))


OUTPUTS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "average": (average, ["checkpoint=[a.ckpt,b.ckpt]", "output={0}/soup.safetensors"]),
    "convert": (convert, ["annotations=data/train.csv", "output={0}/out.json"]),
    "convert to a store": (convert, ["annotations=data/train.csv", "output={0}/out.store"]),
    "export_coco": (export_coco, ["predictions=store", "output={0}/results.json"]),
    "fuse": (fuse, ["predictions=[store,store]", "output={0}/fused"]),
    "import_weights": (import_weights, ["source=a.pth", "output={0}/w.safetensors"]),
    "postprocess": (postprocess, ["predictions=store", "output_dir={0}"]),
    "predict": (predict, ["checkpoint=none.ckpt", "predictions={0}/p", "trainer=cpu"]),
    "report": (report, ["predictions=store", "annotations=none.csv", "output={0}/new/r.html"]),
    "drawings": (report, ["predictions=store", "annotations=none.csv", "drawings_dir={0}/d"]),
    "score": (score, ["submission=s.csv", "annotations=none.csv", "output={0}/score.json"]),
    "search": (search, ["predictions=store", "annotations=none.csv", "output_dir={0}"]),
    "search option": (
        search,
        ["predictions=store", "annotations=none.csv", "config_dir={0}", "output_dir=here"],
    ),
    "split": (split, ["annotations=none.csv", "output={0}/split.json"]),
    "synthesize": (synthesize, ["output={0}/images", "num_train_images=1", "num_test_images=1"]),
    "train": (train, ["paths.output_dir={0}", "trainer=cpu"]),
}


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("disk", ["read-only", "full"])
def test_an_output_that_cannot_be_written_is_named_before_the_work(
    request: pytest.FixtureRequest,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    disk: str,
    name: str,
) -> None:
    """Inputs that are not there would be named first, had the work begun."""
    if disk == "full":
        folder = request.getfixturevalue("full")
    else:
        folder = tmp_path / "locked"
        folder.mkdir()
        request.getfixturevalue("lock")(folder)
    monkeypatch.chdir(tmp_path)
    for file in ("a.ckpt", "b.ckpt"):  # files that are missing are named first, in no time
        (tmp_path / file).write_bytes(b"x")
    program, arguments = OUTPUTS[name]
    given = [argument.format(folder) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["program", *given])
    before = files_in(folder)
    with pytest.raises(SystemExit) as stop:
        program()
    error = capsys.readouterr().err.strip()
    assert (stop.value.code, error.count("\n")) == (2, 0), error
    reason = "No space left on device" if disk == "full" else "Read-only file system|Permission"
    assert error.startswith(f"error: {folder}/"), error
    assert any(text in error for text in reason.split("|")), error
    assert files_in(folder) == before


def test_what_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b" / "c.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("kept")
    check_writable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(InputError, match=r"file: must be a directory, got a file"):
        check_writable(tmp_path / "file" / "c.json")
    with pytest.raises(InputError, match=r"must be a regular file to write, got a directory"):
        check_writable(tmp_path)
    with pytest.raises(InputError, match=r"^/dev/full: must be a regular file to write, got a dev"):
        check_writable("/dev/full")


def test_a_full_disk_is_noticed_with_room_for_a_name(full: Path) -> None:
    with pytest.raises(WriteError, match="No space left"):
        check_writable(full / "a.json")


def test_training_on_read_only_data(data: Path, tmp_path: Path, lock: Lock) -> None:
    shutil.move(data / "images", data / "train")
    lock(data)
    run_training(
        data, tmp_path / "run", "trainer.max_epochs=1", "datamodule.num_validation_images=1"
    )
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {".cache", "split.json", "checkpoints"} <= names
