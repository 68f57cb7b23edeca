"""The mean of checkpoints: its arithmetic, its memory, and what it refuses."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from src.errors import InputError
from src.mmdet_bridge.checkpoints import averaging
from src.mmdet_bridge.checkpoints.averaging import average_weights
from src.mmdet_bridge.checkpoints.reading import save_weights


def write(folder: Path, *contents: dict[str, Tensor]) -> list[Path]:
    paths = [folder / f"{number}.safetensors" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        save_weights(content, path)
    return paths


def random_weights(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "single": torch.randn(3, 4, generator=generator),
        "half": torch.randn(5, generator=generator).half(),
        "bfloat": torch.randn(5, generator=generator).bfloat16(),
        "double": torch.randn(2, generator=generator).double(),
        "scalar": torch.randn((), generator=generator),
        "bn.num_batches_tracked": torch.tensor(10 * seed),
        "flag": torch.tensor([seed == 1, False]),
    }


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=2, max_size=5
    ),
    data=st.data(),
)
def test_is_the_exact_mean_rounded_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]], data: Any
) -> None:
    weights = data.draw(
        st.none() | st.lists(st.integers(1, 9), min_size=len(rows), max_size=len(rows))
    )
    paths = write(tmp_path_factory.mktemp("soup"), *({"w": torch.tensor(row)} for row in rows))
    got = average_weights(paths, weights=weights)["w"]
    assert got.dtype == torch.float32
    shares = weights or [1] * len(rows)
    for column, value in enumerate(got.tolist()):
        exact = sum(Fraction(row[column]) * share for row, share in zip(rows, shares, strict=True))
        # Float64 is 29 bits finer than float32: as good as exact beside the one rounding, except
        # where the terms cancel each other.
        size = max(abs(row[column]) for row in rows)
        expected = float(np.float32(float(exact / sum(shares))))
        assert abs(value - expected) <= max(abs(expected) * 2**-24, size * 2**-50)


def test_each_keeps_its_dtype_and_counters_the_largest(tmp_path: Path) -> None:
    contents = [random_weights(seed) for seed in (1, 2, 3)]
    mean = average_weights(write(tmp_path, *contents))
    assert mean.keys() == contents[0].keys()
    for name, value in mean.items():
        assert (value.dtype, value.shape) == (contents[0][name].dtype, contents[0][name].shape)
        if value.is_floating_point():
            expected = torch.stack([content[name].double() for content in contents]).mean(0)
            assert torch.equal(value, expected.to(value.dtype)), name
    assert mean["bn.num_batches_tracked"] == 30
    assert mean["flag"].tolist() == [True, False]


@pytest.mark.parametrize("count", [2, 3, 5, 7])
@pytest.mark.parametrize("weights", [None, 0.1])
def test_the_mean_of_equals_is_their_bits(
    tmp_path: Path, count: int, weights: float | None
) -> None:
    content = random_weights(4)
    shares = None if weights is None else [weights * (n + 1) for n in range(count)]
    mean = average_weights(write(tmp_path, *[content] * count), weights=shares)
    for name, value in content.items():
        if weights is not None and value.dtype == torch.float64:  # summed up in no finer type
            torch.testing.assert_close(mean[name], value, rtol=1e-15, atol=0)
        else:
            assert torch.equal(mean[name], value), name


def test_names_of_lightning_and_of_mmdet_are_the_same(tmp_path: Path) -> None:
    torch.save({"state_dict": {"detector.w": torch.tensor([1.0])}}, tmp_path / "a.ckpt")
    save_weights({"w": torch.tensor([2.0])}, tmp_path / "b.safetensors")
    mean = average_weights([tmp_path / "a.ckpt", tmp_path / "b.safetensors"])
    assert mean == {"w": torch.tensor([1.5])}


def test_one_file_at_a_time_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(tmp_path, *[random_weights(seed) for seed in range(4)])
    read, load = [], averaging.load_state_dict

    def spy(path: Path) -> dict[str, Tensor]:
        assert not any(content for content in read), "of the files before nothing is left"
        content = load(path)
        read.append(content)
        # The sum takes the file's tensors one by one, so what it holds is what they were.
        return content

    monkeypatch.setattr(averaging, "load_state_dict", spy)
    monkeypatch.setattr(averaging, "detector_names", lambda weights: weights)
    average_weights(paths)
    assert len(read) == 4


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"a": torch.ones(2)},
            r"1\.safetensors must hold the weights of .*0\.safetensors, got b",
        ),
        (
            {"a": torch.ones(2), "b": torch.ones(1), "c": torch.ones(1)},
            r"1\.safetensors must hold the weights of .*0\.safetensors, got c in one of them only",
        ),
        (
            {"a": torch.ones(3), "b": torch.ones(1)},
            r"1\.safetensors: a must be float32 \(2,\) as in .*0\.safetensors, got float32 \(3,\)",
        ),
        (
            {"a": torch.ones(2).half(), "b": torch.ones(1)},
            r"1\.safetensors: a must be float32 \(2,\) as in .*0\.safetensors, got float16 \(2,\)",
        ),
        (
            {"a": torch.tensor([1.0, float("nan")]), "b": torch.ones(1)},
            r"1\.safetensors: weights must be finite, .* in 1 of 2 tensors, the first a;",
        ),
    ],
)
def test_files_that_do_not_match(tmp_path: Path, other: dict[str, Tensor], message: str) -> None:
    paths = write(tmp_path, {"a": torch.ones(2), "b": torch.ones(1)}, other)
    with pytest.raises(InputError, match=message):
        average_weights(paths)


@pytest.mark.parametrize(
    ("numbers", "weights", "message"),
    [
        ([0], None, r"checkpoint must be 2 or more files to average, got 1"),
        ([], None, r"checkpoint must be 2 or more files to average, got 0"),
        ([0, 1, 0], None, r"got .*0\.s.* and .*0\.s.*, which hold the same weights; weights= says"),
        ([0, 1], [1.0], r"weights must be 2 numbers, one for each checkpoint, got \[1.0\]"),
        ([0, 1], [1.0, 0.0], r"weights must be a finite number above 0, got 0\.0"),
        ([0, 1], [1.0, -2.0], r"weights must be a finite number above 0, got -2\.0"),
        ([0, 1], [1.0, float("nan")], r"weights must be a finite number above 0, got nan"),
        ([0, 1], [1.0, "much"], r"weights must be a finite number above 0, got 'much'"),
        ([0, 9], None, r"checkpoint .*9\.safetensors does not exist"),
    ],
)
def test_requests_that_make_no_sense(
    tmp_path: Path, numbers: list[int], weights: list[Any] | None, message: str
) -> None:
    write(tmp_path, {"a": torch.ones(1)}, {"a": torch.ones(1)})
    with pytest.raises(InputError, match=message):
        average_weights([tmp_path / f"{n}.safetensors" for n in numbers], weights=weights)
