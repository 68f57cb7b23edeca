"""Damaged files of a prediction store are noticed and named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from src.errors import InputError
from src.io import check_seal, seal
from src.predictions.store import PredictionStore
from tests.helpers.stores import check_same, make_images, write_store


def read_all(directory: Path) -> None:
    store = PredictionStore(directory)
    for index in range(len(store)):
        store.candidates(index)


@pytest.mark.parametrize("length", [0, 1, 100, 5000, -10, -2000])
def test_a_shortened_shard_is_named(tmp_path: Path, length: int) -> None:
    write_store(tmp_path, make_images(0, 8))
    path = tmp_path / "rank00000_shard00001.arrow"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"rank00000_shard00001\.arrow: .*delete it and run the"):
        read_all(tmp_path)


def test_a_flipped_byte_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    images = make_images(1, 5)
    write_store(tmp_path, images)
    path = tmp_path / "rank00000_shard00000.arrow"
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    unnoticed = 0
    for place in random.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            store = PredictionStore(tmp_path)
            found = [store.candidates(index) for index in range(len(store))]
        except InputError as error:
            assert "rank00000_shard00000.arrow: " in str(error)  # noqa: PT017
            continue
        unnoticed += 1
        for image, candidates in zip(images, found, strict=True):
            check_same(candidates, image, "float16")
    assert unnoticed < 15  # padding between buffers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            None,
            r"meta\.json: missing; a prediction store is a folder that `python -m src\.predict`",
        ),
        ("", r"meta\.json: damaged or no JSON"),
        ('{"format_version": 1, "categ', r"meta\.json: damaged or no JSON"),
        ("[]", r"meta\.json: must hold a JSON object, got list"),
        ("{}", r"format_version must be 1 or 2, got None \(.*meta\.json\)"),
        ('{"format_version": 3}', r"format_version must be 1 or 2, got 3 \(.*meta\.json\)"),
        ('{"format_version": 2}', r"meta\.json: damaged \(key 'category_ids' is missing\)"),
    ],
)
def test_damaged_meta_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    write_store(tmp_path, make_images(0, 2))
    path = tmp_path / "meta.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        PredictionStore(tmp_path)


def test_meta_with_a_wrong_value_is_named(tmp_path: Path) -> None:
    write_store(tmp_path, [])
    path = tmp_path / "meta.json"
    content = check_seal(json.loads(path.read_text()), path)
    path.write_text(json.dumps(seal(content | {"mask_size_hw": 28})))
    with pytest.raises(InputError, match=r"meta\.json: damaged \(.int. object is not iterable"):
        PredictionStore(tmp_path)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere/meta\.json: missing"):
        PredictionStore(tmp_path / "nowhere")
