"""Reading and writing weights: every kind of file, and every way a file can be bad."""

from __future__ import annotations

import hashlib
import os
import re
import stat

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import InputError
from src.io import file_sha256
from src.mmdet_bridge.checkpoints.reading import (
    load_checkpoint,
    load_state_dict,
    save_weights,
)
from tests.helpers.checkpoints import assert_same, make_weights


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "meta": {"CLASSES": ("shirt",), "epoch": 12}},
        lambda weights: {"state_dict": weights, "optimizer": {"state": {0: torch.ones(2)}}},
        lambda weights: {"model": weights, "epoch": 12},
        lambda weights: {"model": {"other": torch.ones(1)}, "state_dict": weights},
    ],
    ids=["bare", "mmdetection", "with optimizer", "model", "both"],
)
def test_reads_files_of_torch_save(tmp_path, wrap, new_format):
    path = tmp_path / "any.name"
    torch.save(wrap(make_weights()), path, _use_new_zipfile_serialization=new_format)
    assert_same(load_state_dict(path), make_weights())


def test_reads_a_checkpoint_that_lightning_wrote(tmp_path):
    import lightning as pl

    class Module(pl.LightningModule):
        def __init__(self, rate: float = 0.1):
            super().__init__()
            self.save_hyperparameters()
            self.detector = torch.nn.Linear(2, 1)

        def training_step(self, batch):
            return self.detector(batch).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.hparams.rate, momentum=0.9)

    module = Module()
    trainer = pl.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[pl.pytorch.callbacks.ModelCheckpoint(dirpath=tmp_path, filename="last")],
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.ones(4, 2)))
    assert_same(load_state_dict(tmp_path / "last.ckpt"), module.state_dict())


def test_safetensors_round_trip(tmp_path):
    shared = torch.arange(6.0)
    weights = make_weights() | {
        "transposed": torch.rand(3, 4).t(),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.ones(1).expand(5),
        "tied": shared,
        "tied too": shared,
        "parameter": torch.nn.Parameter(torch.rand(3)),
        "half": torch.rand(3).to(torch.bfloat16),
        "empty": torch.zeros(0, 4),
    }
    path = tmp_path / "made" / "weights.safetensors"
    save_weights(weights, path)
    got = load_state_dict(path)
    assert_same(dict(sorted(got.items())), dict(sorted(weights.items())))
    assert not any(tensor.requires_grad for tensor in got.values())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current_umask()


def test_notes_stand_in_the_header(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights({"weight": torch.ones(3)}, path, notes={"source": "coco.pth"})
    with safetensors.safe_open(path, framework="pt") as file:
        notes = {"format": "pt", "source": "coco.pth", "weights_checksum": "weights_sha256"}
        assert file.metadata().items() > notes.items()
    assert_same(load_state_dict(path), {"weight": torch.ones(3)})
    assert load_checkpoint(path).meta == {}
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_safetensors_are_told_by_content(tmp_path):
    safetensors.torch.save_file({"weight": torch.ones(3)}, tmp_path / "named.pth")
    assert_same(load_state_dict(tmp_path / "named.pth"), {"weight": torch.ones(3)})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save_weights({"weight": torch.zeros(3)}, path)

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        save_weights({"weight": torch.ones(3)}, path)
    assert_same(load_state_dict(path), {"weight": torch.zeros(3)})
    assert list(tmp_path.iterdir()) == [path]


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must end in \.safetensors, got .*weights\.pth"):
        save_weights({"weight": torch.zeros(3)}, tmp_path / "weights.pth")


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pth")
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.linear\.Linear"):
        load_state_dict(tmp_path / "model.pth")


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=rf"checkpoint {tmp_path}/a\.ckpt does not exist"):
        load_state_dict(tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=rf"checkpoint {tmp_path} is a folder"):
        load_state_dict(tmp_path)


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    weights = {"weight": torch.arange(500.0)}
    torch.save(weights, folder / "new.pth")
    torch.save(weights, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_weights(weights, folder / "new.safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=60, deadline=None)
@given(
    share=st.floats(0, 1, exclude_max=True),
    name=st.sampled_from(["new.pth", "old.pth", "new.safetensors"]),
)
def test_a_file_cut_anywhere_is_named(tmp_path_factory, good_files, name, share):
    path = tmp_path_factory.mktemp("cut") / name
    path.write_bytes(good_files[name][: int(len(good_files[name]) * share)])
    with pytest.raises(InputError, match=rf"{re.escape(str(path))} is cut short"):
        load_state_dict(path)


def test_an_older_file_cut_within_a_name_is_named(tmp_path, good_files):
    """Every cut within the pickle: a name cut short is no code that the file wants."""
    content = good_files["old.pth"]
    path = tmp_path / "old.pth"
    for length in range(content.find(b"collections")):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"old\.pth is cut short"):
            load_state_dict(path)


def test_a_flipped_bit_is_found(tmp_path, good_files):
    content = bytearray(good_files["new.pth"])
    position = content.find(torch.arange(500.0).numpy().tobytes())
    content[position + 99] ^= 4
    path = tmp_path / "flipped.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"flipped\.pth is damaged: wrong checksum of its part"):
        load_state_dict(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_any_other_file_is_no_checkpoint(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("other") / "file"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(path))):
        load_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold weights, tensors by name .*, got a list"),
        (torch.ones(2), "must hold weights, tensors by name .*, got a Tensor"),
        ({}, "must hold weights, .*, got nothing"),
        ({"state_dict": {}}, "must hold weights, .*, got nothing"),
        ({"epoch": 3}, "must hold weights, .*, got 'epoch', which is no tensor"),
        (
            {"state_dict": {"a": torch.ones(1), "b": 2.0}},
            "must hold weights, .*, got 'b', which",
        ),
    ],
)
def test_something_else_of_torch_save(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InputError, match=rf"other\.pth {message}"):
        load_state_dict(tmp_path / "other.pth")
