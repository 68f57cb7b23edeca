"""What a checkpoint may do: nothing, unless the user says that it is trusted."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from src.errors import InputError
from src.mmdet_bridge.checkpoints.reading import load_checkpoint, load_state_dict
from tests.helpers.checkpoints import Malicious, assert_same, make_weights


@pytest.mark.parametrize("kind", ["new format", "old format", "bare pickle"])
def test_code_in_a_file_never_runs(tmp_path, kind):
    trace, path = tmp_path / "ran", tmp_path / "model.pth"
    content = {"state_dict": make_weights(), "extra": Malicious(trace)}
    if kind == "bare pickle":
        path.write_bytes(pickle.dumps(Malicious(trace), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "new format")
    with pytest.raises(
        InputError, match=r"model\.pth holds more than weights.*run code.*: posix\.system\. Where"
    ):
        load_state_dict(path)
    assert not trace.exists()

    with path.open("rb") as file:
        if kind == "bare pickle":
            pickle.load(file)
        else:
            torch.load(file, weights_only=False)
    assert trace.exists(), "the file would have run its code elsewhere"


@pytest.mark.parametrize("kind", ["new format", "old format"])
def test_a_trusted_file_runs_its_code(tmp_path, kind):
    trace, path = tmp_path / "ran", tmp_path / "model.pth"
    content = {"state_dict": make_weights(), "extra": Malicious(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=kind == "new format")
    assert_same(load_checkpoint(path, trusted=True).weights, make_weights())
    assert trace.exists()


def test_a_trusted_file_is_read_as_data_where_that_is_enough(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    torch.save({"state_dict": make_weights()}, path)
    load, asked = torch.load, []

    def spy(*args, weights_only, **kwargs):
        asked.append(weights_only)
        return load(*args, weights_only=weights_only, **kwargs)

    monkeypatch.setattr("torch.load", spy)
    load_checkpoint(path, trusted=True)
    assert asked == [True]


def test_a_trusted_file_that_needs_what_is_not_there(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"state_dict": make_weights(), "meta": Local()}, path)
    rename(path, b"Local", b"Gone")
    with pytest.raises(
        InputError, match=r"model\.pth fails to load although it is trusted \(AttributeError.*Gone"
    ):
        load_checkpoint(path, trusted=True)


class Local:
    """Something that another machine may lack."""


def rename(path, old, new):
    """Write another name into a file of torch.save's."""
    renamed = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(renamed, "w") as archive:
        contents = [(entry.filename, source.read(entry)) for entry in source.infolist()]
        assert any(old in content for _, content in contents)
        for name, content in contents:
            archive.writestr(name, content.replace(old, new))
    path.write_bytes(renamed.getvalue())


@pytest.mark.parametrize("module", ["numpy._core", "numpy.core"])
def test_numbers_of_numpys_beside_the_weights_need_no_trust(tmp_path, module):
    path = tmp_path / "epoch_12.pth"
    meta = {
        "best_score": np.float64(0.439),
        "iterations": np.int64(7),
        "done": np.bool_(True),
        "loss": np.linspace(0, 1, 5, dtype=np.float32),
        "mmdet_version": "3.1.0",
    }
    torch.save({"state_dict": make_weights(), "meta": meta}, path, pickle_protocol=2)
    # As numpy of that time would have written it.
    rename(path, b"cnumpy._core.multiarray\n", f"c{module}.multiarray\n".encode())
    checkpoint = load_checkpoint(path)
    assert_same(checkpoint.weights, make_weights())
    assert checkpoint.meta["best_score"] == 0.439
    assert checkpoint.meta["iterations"] == 7
    assert checkpoint.meta["loss"].tolist() == meta["loss"].tolist()
    assert load_state_dict(path).keys() == make_weights().keys()
    allowed = torch.serialization.get_safe_globals()
    assert np.ndarray not in allowed, "other loads are as strict as before"


def test_an_array_of_objects_is_refused(tmp_path):
    path = tmp_path / "epoch_12.pth"
    strange = np.array([Malicious(tmp_path / "ran")], dtype=object)
    torch.save({"state_dict": make_weights(), "meta": {"strange": strange}}, path)
    with pytest.raises(InputError, match=r"epoch_12\.pth holds more than weights.*posix\.system"):
        load_state_dict(path)
    torch.save({"meta": {"none": np.array([None], dtype=object)}}, path)
    with pytest.raises(InputError, match=r"epoch_12\.pth"):
        load_state_dict(path)
    assert not (tmp_path / "ran").exists()


def test_what_mmengine_puts_beside_the_weights_is_named(tmp_path):
    from mmengine.logging import HistoryBuffer

    path = tmp_path / "epoch_12.pth"
    torch.save({"state_dict": make_weights(), "message_hub": HistoryBuffer([1.0], [1])}, path)
    with pytest.raises(
        InputError, match=r"builtins\.getattr, mmengine\.\S+HistoryBuffer.*publish_model\.py"
    ) as caught:
        load_state_dict(path)
    assert "If you trust whoever made it as you trust a program: python -m src.import" in str(
        caught
    )
    assert_same(load_checkpoint(path, trusted=True).weights, make_weights())
