"""Soups and imported weights: a flipped bit is noticed, the same inputs give the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from src.errors import InputError
from src.mmdet_bridge.checkpoints.averaging import average_weights
from src.mmdet_bridge.checkpoints.reading import load_state_dict, save_weights
from tests.helpers.checkpoints import assert_same, make_weights

NOTES = {"source": "a.pth", "layout": "v3", "class_layers": "reset", "source_sha256": "0" * 64}


@pytest.fixture
def soup(tmp_path: Path) -> Path:
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for path in paths:
        save_weights(make_weights(), path)
    save_weights(average_weights(paths), tmp_path / "soup.safetensors", notes=NOTES)
    return tmp_path / "soup.safetensors"


def test_every_flipped_bit_is_noticed_or_harmless(soup: Path) -> None:
    wanted = load_state_dict(soup)
    whole = soup.read_bytes()
    random = np.random.default_rng(0)
    numbers = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(0, numbers, 5), *random.integers(numbers, len(whole), 150)]
    unnoticed = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.integers(8)
        soup.write_bytes(damaged)
        try:
            found = load_state_dict(soup)
        except InputError as error:
            assert str(soup) in str(error)  # noqa: PT017
            continue
        unnoticed += 1
        assert_same(found, wanted)
    assert unnoticed <= 1  # white space behind the header
    for length in (0, 7, 100, numbers, len(whole) - 1):
        soup.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"soup\.safetensors"):
            load_state_dict(soup)
    soup.write_bytes(whole)
    assert_same(load_state_dict(soup), wanted)


def test_the_message_says_what_to_do(soup: Path) -> None:
    damaged = bytearray(soup.read_bytes())
    damaged[-3] ^= 1
    soup.write_bytes(damaged)
    with pytest.raises(
        InputError,
        match=r"soup\.safetensors is cut short or damaged: its checksum does not match; write it",
    ):
        load_state_dict(soup)


def test_a_file_of_another_program_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    for metadata in (None, {"format": "pt", "sha256": "abc", "checksum": "x"}):
        safetensors.torch.save_file(make_weights(), path, metadata=metadata)
        assert_same(
            dict(sorted(load_state_dict(path).items())), dict(sorted(make_weights().items()))
        )


def test_other_programs_read_the_file(soup: Path) -> None:
    assert_same(dict(safetensors.torch.load_file(soup)), load_state_dict(soup))
    with safetensors.safe_open(soup, framework="pt") as file:
        assert NOTES.items() <= file.metadata().items()
        assert file.metadata()["format"] == "pt"


def test_the_same_weights_and_notes_are_the_same_bytes(tmp_path: Path) -> None:
    """The library lays out the notes in another order each time."""
    weights = {name: torch.arange(15.0) for name in ("b.weight", "a.weight", "c.bias")}
    written, by_library = set(), set()
    for number, order in enumerate(("abcdefgh", "hgfedcba", "badcfehg", "abcdefgh")):
        notes = {key: key * 3 for key in order}
        path = tmp_path / f"{number}.safetensors"
        save_weights(dict(reversed(weights.items())) if number % 2 else weights, path, notes=notes)
        written.add(path.read_bytes())
        by_library.add(safetensors.torch.save(weights, metadata=notes))
    assert len(written) == 1
    assert len(by_library) > 1
