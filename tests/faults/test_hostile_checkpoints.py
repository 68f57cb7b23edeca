"""Checkpoints that are bombs, pipes, another tool's, or hold nan."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from src.cli.resume import choose_checkpoint
from src.cli.training import start_from
from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import build_detector, load_weights
from src.mmdet_bridge.checkpoints.averaging import average_weights
from src.mmdet_bridge.checkpoints.files import checkpoint_paths
from src.mmdet_bridge.checkpoints.reading import (
    MAX_HEADER_BYTES,
    Checkpoint,
    check_archive,
    check_finite,
    load_checkpoint,
    load_state_dict,
)
from src.mmdet_bridge.checkpoints.weight_import import detect_layout, upgrade_layout
from src.modules.ensemble import load_models
from tests.helpers.cascades import SMALL, detector_config
from tests.helpers.checkpoints import Malicious

RUN = {"global_step": 3, "position": {"epoch": 1}, "config": {}, "callbacks": {}}


LOOP: dict[str, Any] = {}
LOOP["again"] = LOOP


def read_everywhere(path: Path) -> list[Callable[[], Any]]:
    """Return every way in which a checkpoint comes in."""
    return [
        lambda: load_checkpoint(path),
        lambda: load_checkpoint(path, trusted=True),
        lambda: choose_checkpoint(resume=str(path), directory=path.parent),
        lambda: average_weights([path, path.with_name("other")]),
        lambda: start_from(None, str(path)),  # type: ignore[arg-type]  # never reached
        lambda: load_models([path], detector={}, num_classes=5, category_ids=None),
    ]


def repack(path: Path, *, compression: int) -> None:
    """Write a file of torch.save's again with its parts compressed."""
    with zipfile.ZipFile(path) as archive:
        parts = [(part.filename, archive.read(part)) for part in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts:
            archive.writestr(name, content)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_compressed_checkpoint_is_refused_by_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: int
) -> None:
    path = tmp_path / "bomb.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(2_000_000)}, **RUN}, path)
    repack(path, compression=compression)
    assert path.stat().st_size < 20_000

    def unpack(*_: Any, **__: Any) -> None:
        raise AssertionError("the archive was unpacked")

    monkeypatch.setattr(torch, "load", unpack)
    monkeypatch.setattr(zipfile.ZipFile, "testzip", unpack)
    for read in read_everywhere(path):
        with pytest.raises(
            InputError,
            match=r"bomb\.ckpt is no file of torch\.save: its part bomb/\S+ is compressed "
            r"\(\d+ bytes that unpack to \d+\), which torch\.save never does",
        ):
            read()


def test_parts_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "overlapping.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", bytes(10_000))
        first = archive.infolist()[0]
        archive.filelist += [first] * 50  # the directory lists it again and again
    with pytest.raises(InputError, match=r"its parts claim 510000 bytes, the file has \d{5}$"):
        check_archive(path)


def test_tensors_that_claim_more_than_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "wide.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1).expand(10**6, 10**6)}}, path)
    with pytest.raises(InputError, match=r"its tensors claim 4000000000000 bytes, the file has"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2, device="meta"), r"a must be a dense tensor .*torch\.float32, meta"),
        (torch.eye(2).to_sparse(), r"a must be a dense tensor .*torch\.sparse_coo"),
        (
            torch.quantize_per_tensor(torch.ones(1), 1.0, 0, torch.qint8),
            r"a must be a dense tensor",
        ),
    ],
)
def test_tensors_without_plain_numbers(tmp_path: Path, value: Tensor, message: str) -> None:
    torch.save({"state_dict": {"a": value}}, path := tmp_path / "odd.ckpt")
    with pytest.raises(InputError, match=message):
        load_checkpoint(path)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    torch.save({"state_dict": {7: torch.zeros(1)}}, path := tmp_path / "odd.ckpt")
    with pytest.raises(InputError, match=r"odd\.ckpt: names must be text, got 7"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (2**62, r"is cut short or damaged: its header takes 4611686018427387904 bytes, the file"),
        (
            MAX_HEADER_BYTES + 1,
            rf"a header of safetensors must have at most {MAX_HEADER_BYTES} byt",
        ),
    ],
)
def test_the_header_of_safetensors_is_bounded(tmp_path: Path, header: int, message: str) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", header) + b"{}")
        file.truncate(MAX_HEADER_BYTES + 100)
    with pytest.raises(InputError, match=message):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**63]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1, 1, 3], "data_offsets": [0, 4]},
        "posix.system",
    ],
)
def test_safetensors_that_claim_what_is_not_there(tmp_path: Path, entry: Any) -> None:
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(InputError, match=r"a\.safetensors is cut short or damaged: "):
        load_checkpoint(path)


def test_a_pipe_or_a_device_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe.ckpt")
    for path, kind in ((pipe, "pipe"), (Path("/dev/zero"), "device")):
        for read in read_everywhere(path):
            with pytest.raises(InputError, match=rf"{path}: must be a regular file, got a {kind}"):
                read()
        with pytest.raises(InputError, match=rf"{path}: must be a regular file, got a {kind}"):
            checkpoint_paths(str(path), best=None, directory=tmp_path)


def test_resuming_from_a_hostile_file_gives_no_advice_to_run_it(tmp_path: Path) -> None:
    trace, path = tmp_path / "ran", tmp_path / "hostile.ckpt"
    torch.save({**RUN, "state_dict": {}, "extra": Malicious(trace)}, path)
    with pytest.raises(InputError, match=r"hostile\.ckpt is cut short, damaged, or no") as caught:
        choose_checkpoint(resume=str(path), directory=tmp_path)
    told = str(caught.value)
    assert "weights_only" not in told
    assert "trust" not in told
    assert "add_safe_globals" not in told
    assert "\n" not in told
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"global_step": "3"}, "global_step must be a count of steps"),
        ({"global_step": True}, "global_step must be a count of steps"),
        ({"position": [1]}, "position must be a position in the data"),
        ({"position": {"epoch": None}}, r"position\.epoch must be a count of epochs"),
        ({"config": "${oc.env:HOME}"}, "config must be a configuration"),
        ({"config": LOOP}, r"config must hold at most \d+ values, 40 deep"),
        ({"callbacks": {"a": 1}}, "callbacks must be states by name"),
        ({"state_dict": {"a": 1}}, "state_dict must be tensors by name"),
        (
            {"callbacks": {"M\x1b[31m": {"kth_best_model_path": "/runs/a/../../home/notes"}}},
            r"callbacks\.M\\x1b\[31m must name files of the run, got '/runs/a/\.\./",
        ),
        (
            {"callbacks": {"M": {"best_k_models": {"s3://b/x": 1}}}},
            r"callbacks\.M must name files of the run",
        ),
    ],
)
def test_what_a_run_would_take_without_a_look(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    torch.save({**RUN, "state_dict": {"a": torch.ones(1)}, **change}, path := tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=rf"a\.ckpt: {message}"):
        choose_checkpoint(resume=str(path), directory=tmp_path)


def test_nan_is_refused_wherever_weights_come_in(tmp_path: Path) -> None:
    config = detector_config("htc_tiny", *SMALL)
    weights = build_detector(config, init_weights=False).state_dict()
    names = [name for name, value in weights.items() if value.is_floating_point()]
    weights[names[3]].view(-1)[-1] = float("nan")
    weights[names[7]].view(-1)[0] = float("-inf")
    path = tmp_path / "nan.ckpt"
    torch.save({"state_dict": weights, **RUN}, path)
    torch.save({"state_dict": {"a": torch.ones(1)}}, path.with_name("other"))
    message = (
        rf"nan\.ckpt: weights must be finite, got nan or infinite values in 2 of {len(weights)} "
        rf"tensors, the first {names[3]}; take a checkpoint from before the loss was nan$"
    )
    for read in (
        lambda: choose_checkpoint(resume=str(path), directory=tmp_path),
        lambda: average_weights([path, path.with_name("other")]),
        lambda: start_from(None, str(path)),  # type: ignore[arg-type]  # never reached
        lambda: load_models([path], detector=config, num_classes=5, category_ids=None),
    ):
        with pytest.raises(InputError, match=message):
            read()


def test_a_run_whose_last_checkpoint_is_nan_takes_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step, value in ((2, 1.0), (4, float("nan"))):
        content = {**RUN, "global_step": step, "state_dict": {"a": torch.tensor([value])}}
        torch.save(content, tmp_path / f"step_{step:08d}.ckpt")
    found = choose_checkpoint(resume="auto", directory=tmp_path)
    assert found is not None
    assert found.step == 2
    assert "left out: " in caplog.text
    assert "weights must be finite" in caplog.text


def test_whole_numbers_are_finite() -> None:
    check_finite({"steps": torch.tensor(3), "flag": torch.tensor(True)}, "a.ckpt")


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("", None),
        ("detector.", None),
        ("module.", "its names start with module., which is taken off"),
        ("model.", "its names start with model., which is taken off"),
        ("ema_model.", "its names start with ema_model., which is taken off"),
        ("ema_", "its names start with ema_, which is taken off"),
        ("module.model.", "its names start with module.model., which is taken off"),
        ("model.detector.", "its names start with model., which is taken off"),
        (
            "ema_model.module.detector.",
            "its names start with ema_model.module., which is taken off",
        ),
        ("_orig_mod.", "its names start with _orig_mod., which is taken off"),
    ],
)
def test_prefixes_of_wrappers_are_taken_off_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str, said: str | None
) -> None:
    caplog.set_level("INFO")
    detector = build_detector(detector_config("htc_tiny", *SMALL), init_weights=False)
    weights = {name: value.clone() for name, value in detector.state_dict().items()}
    wrapped = {f"{prefix}{name}": value for name, value in weights.items()}
    load_weights(detector, wrapped)
    assert caplog.messages == ([] if said is None else [f"weights: {said}"])
    caplog.clear()
    checkpoint = Checkpoint(path=tmp_path / "a.ckpt", weights=wrapped)
    assert [entry.target for entry in upgrade_layout(checkpoint, detect_layout(checkpoint))] == [
        *weights
    ]
    assert caplog.messages == ([] if said is None else [f"checkpoint {tmp_path}/a.ckpt: {said}"])


def test_a_moving_average_beside_the_weights_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    detector = build_detector(detector_config("htc_tiny", *SMALL), init_weights=False)
    weights = {name: value.clone() for name, value in detector.state_dict().items()}
    both = {f"model.{name}": value for name, value in weights.items()}
    both |= {f"ema_model.{name}": value + 1 for name, value in weights.items()}
    both["n_averaged"] = torch.tensor(7)
    load_weights(detector, both)
    for name, value in detector.state_dict().items():
        assert torch.equal(value, weights[name])
    assert caplog.messages == [
        f"weights: its names start with model., which is taken off; {len(weights)} tensors of a "
        f"moving average are left out ({', '.join([*both][len(weights) : len(weights) + 3])}, ...)"
    ]


def test_averages_of_files_that_spell_names_differently(tmp_path: Path) -> None:
    safetensors.torch.save_file({"module.a": torch.ones(2)}, one := tmp_path / "1.safetensors")
    torch.save({"model.a": torch.full((2,), 3.0)}, two := tmp_path / "2.pth")
    assert average_weights([one, two])["a"].tolist() == [2.0, 2.0]
    assert load_state_dict(one).keys() == {"module.a"}
