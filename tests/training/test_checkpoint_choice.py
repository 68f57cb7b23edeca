"""Damaged checkpoints are named and left out, other runs' are refused."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch

from src.callbacks.checkpoints import AtomicCheckpointIO, hard_link
from src.cli.entry_point import to_plain
from src.cli.resume import (
    FoundCheckpoint,
    archive_later_checkpoints,
    check_same_run,
    choose_checkpoint,
)
from src.errors import InputError, WriteError
from src.processes import process_identity
from tests.helpers.configs import compose_config


def write(
    path: Path, *, step: int, epoch: int = 0, batches_done: int = 1, **config: object
) -> None:
    content = {
        "global_step": step,
        "position": {"epoch": epoch, "batches_done": batches_done},
        "callbacks": {},
        "config": config,
        "state_dict": {"weight": torch.full((500,), float(step))},
    }
    AtomicCheckpointIO().save_checkpoint(content, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of steps 6 (an epoch's), 8 and 10; the last one has a second name."""
    write(tmp_path / "epoch_00.ckpt", step=6, epoch=1, batches_done=0)
    write(tmp_path / "step_00000008.ckpt", step=8)
    write(tmp_path / "step_00000010.ckpt", step=10)
    hard_link(tmp_path / "step_00000010.ckpt", "last.ckpt")
    return tmp_path


def test_a_checkpoint_from_before_the_keys_were_renamed_is_of_the_same_run(tmp_path: Path) -> None:
    before = {
        "datamodule": {"train_images": "a", "validation_images": 4},
        "module": {"score_floor": 0.1},
        "postprocess": {"remove_categories": [1], "remove": "none"},
    }
    now = {
        "datamodule": {"images": "a", "num_validation_images": 4},
        "module": {"min_score": 0.1},
        "postprocess": {"remove_categories": [1]},
    }
    write(tmp_path / "last.ckpt", step=3, **before)
    found = choose_checkpoint(resume="auto", directory=tmp_path)
    assert found is not None
    assert found.content["config"] == now
    check_same_run(found, now)


def chosen(folder: Path) -> int | None:
    found = choose_checkpoint(resume="auto", directory=folder)
    return None if found is None else found.step


def flip_a_byte_of_the_weights(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start = content.index(np.full(500, 10.0, dtype=np.float32).tobytes())
    content[start + 700] ^= 1
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (flip_a_byte_of_the_weights, "is damaged: wrong checksum of its part"),
        (cut_in_half, "is cut short or damaged"),
        (empty, "is cut short or damaged"),
    ],
)
def test_the_one_before_a_damaged_one_is_taken(
    folder: Path, damage, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert chosen(folder) == 10
    damage(folder / "step_00000010.ckpt")
    assert chosen(folder) == 8
    assert f"left out: checkpoint {folder}/step_00000010.ckpt {why}" in caplog.text
    cut_in_half(folder / "step_00000008.ckpt")
    assert chosen(folder) == 6
    cut_in_half(folder / "epoch_00.ckpt")
    assert chosen(folder) is None


def test_any_flipped_byte_is_found_or_harmless(folder: Path) -> None:
    path = folder / "step_00000010.ckpt"
    whole, expected = path.read_bytes(), torch.load(path, weights_only=True)
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(whole), 60):
        changed = bytearray(whole)
        changed[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(changed)
        if chosen(folder) == 10:
            found = torch.load(path, weights_only=True)
            assert torch.equal(found["state_dict"]["weight"], expected["state_dict"]["weight"])
            assert found["position"] == expected["position"]


def test_a_damaged_checkpoint_given_by_its_path_is_an_error(folder: Path) -> None:
    flip_a_byte_of_the_weights(folder / "step_00000010.ckpt")
    with pytest.raises(InputError, match=r"step_00000010\.ckpt is damaged: wrong checksum"):
        choose_checkpoint(resume=str(folder / "step_00000010.ckpt"), directory=folder)


def test_a_missing_path_is_named(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"resume must be auto, never or a checkpoint file, got no\.ckpt: no such"
    ):
        choose_checkpoint(resume="no.ckpt", directory=folder)


def test_a_file_that_wants_to_run_code_is_no_checkpoint(folder: Path) -> None:
    torch.save({"global_step": print}, folder / "epoch_05.ckpt")
    assert chosen(folder) == 10
    with pytest.raises(InputError, match=r"epoch_05\.ckpt is cut short, damaged, or no checkpoint"):
        choose_checkpoint(resume=str(folder / "epoch_05.ckpt"), directory=folder)


def test_weights_alone_are_nothing_to_go_on_from(folder: Path) -> None:
    torch.save({"state_dict": {}}, folder / "weights.ckpt")
    with pytest.raises(
        InputError, match=r"none that a run can resume from; .* initial_weights=.*s"
    ):
        choose_checkpoint(resume=str(folder / "weights.ckpt"), directory=folder)


def test_a_copied_folder_without_links_is_understood(folder: Path) -> None:
    shutil.copytree(folder, folder / "copy")
    found = choose_checkpoint(resume="auto", directory=folder / "copy")
    assert found is not None
    assert found.path.name == "step_00000010.ckpt"
    for path in (folder / "copy").glob("step_*"):
        path.unlink()
    assert chosen(folder / "copy") == 10


def test_later_checkpoints_are_archived(folder: Path) -> None:
    """A run that goes back leaves none that would be taken for its newest."""
    host = process_identity()["host"]
    (folder / f".step_00000012.ckpt.{host}-1-1.part").write_bytes(b"PK")
    (folder / "step_00000011.ckpt").write_bytes(b"damaged")
    archive_later_checkpoints(folder, after_step=6)
    assert chosen(folder) == 6
    moved = {"step_00000008.ckpt", "step_00000010.ckpt", "step_00000011.ckpt"}
    assert {path.name for path in (folder / "superseded").iterdir()} == moved
    assert {path.name for path in folder.iterdir()} == {"epoch_00.ckpt", "superseded"}
    archive_later_checkpoints(folder, after_step=-1)
    assert chosen(folder) is None


def test_a_checkpoint_has_its_name_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    write(path, step=1)
    before = path.read_bytes()

    def save_half(content: object, file: IO[bytes]) -> None:
        file.write(before[:100])
        raise RuntimeError("unexpected pos 9349888 vs 9349776")

    monkeypatch.setattr(torch, "save", save_half)
    with pytest.raises(WriteError, match=r"No space left on device: '.*last\.ckpt'"):
        write(path, step=2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def compare(saved: dict, now: dict) -> None:
    checkpoint = FoundCheckpoint(Path("last.ckpt"), {"config": saved, "global_step": 1})
    check_same_run(checkpoint, now)


@pytest.mark.parametrize(
    ("saved", "now", "message"),
    [
        (
            {"module": {"detector": {"depth": 18}}},
            {"module": {"detector": {"depth": 50}}},
            r"module\.detector\.depth: 18 then, 50 now\. Resume .* name=\.\.\..*initial_weights",
        ),
        ({"optimizer": {"lr": 0.1}}, {"optimizer": {"lr": 0.2}}, r"optimizer\.lr: 0\.1 then, 0\.2"),
        ({"seed": 1}, {"seed": 2}, "seed: 1 then, 2 now"),
        (
            {"datamodule": {"flip_probability": 0.5}},
            {"datamodule": {}},
            r"datamodule\.flip_probability: 0\.5 then, nothing now",
        ),
        (
            {"scheduler": None},
            {"scheduler": {"gamma": 1}},
            r"scheduler\.gamma: nothing then, 1 now",
        ),
    ],
)
def test_another_run_is_refused(saved: dict, now: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(saved, now)


def test_a_run_from_before_a_key_resumes_unless_it_changes_something() -> None:
    off = compose_config("train", ["paths.output_dir=x"]).datamodule.geometric_augmentation
    now = {"datamodule": {"seed": 1, "geometric_augmentation": to_plain(off)}}
    compare({"datamodule": {"seed": 1}}, now)
    now["datamodule"]["geometric_augmentation"]["rotation_degrees"] = 10.0
    with pytest.raises(InputError, match=r"rotation_degrees: 0\.0 then, 10\.0 now\. Resume"):
        compare({"datamodule": {"seed": 1}}, now)


def test_what_makes_no_other_run_may_change(caplog: pytest.LogCaptureFixture) -> None:
    saved = {
        "trainer": {"max_epochs": 20},
        "datamodule": {"num_workers": 1, "predict_batch_size": 1, "images": "a"},
        "logger": {"csv": {}},
        "paths": {"data_dir": "a"},
    }
    now = {
        "trainer": {"max_epochs": 24},
        "datamodule": {"num_workers": 4, "predict_batch_size": 2, "images": "b"},
        "logger": None,
        "paths": {"data_dir": "b"},
    }
    with caplog.at_level(logging.WARNING):
        compare(saved, now)
    assert caplog.messages == ["trainer.max_epochs: 20 in the checkpoint, 24 now"]


@pytest.mark.parametrize(
    ("limits", "is_done"),
    [
        ({"max_epochs": 2, "max_steps": -1}, True),
        ({"max_epochs": 3, "max_steps": -1}, False),
        ({"max_epochs": -1, "max_steps": 12}, True),
        ({"max_epochs": -1, "max_steps": 13}, False),
        ({"max_epochs": None, "max_steps": -1}, False),
    ],
)
def test_the_end_of_a_run(limits: dict, is_done: bool) -> None:
    content = {"global_step": 12, "position": {"epoch": 2, "batches_done": 0}}
    assert FoundCheckpoint(Path("x"), content).is_at_the_end(**limits) is is_done
