"""Every parser of files under structure-aware damage; `make fuzz` does the same for minutes."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from src import validate_submission
from src.annotations.categories import read_label_descriptions
from src.annotations.image_files import read_image_rgb
from src.annotations.mask_pixels import read_mask_values
from src.annotations.store import open_store
from src.annotations.store_builder import build_store
from src.cli.entry_point import one_line
from src.errors import MAX_MESSAGE_CHARACTERS, InputError
from src.mmdet_bridge.checkpoints.untrusted_config import check_plain
from src.predictions.files import read_meta
from tests.helpers.fuzz_targets import TARGETS, bounded, try_damaged, try_reading, valid_files

NUM_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))


@pytest.mark.parametrize("name", TARGETS)
def test_valid_files_are_read(name: str) -> None:
    assert try_reading(name, valid_files(name)) is None


@pytest.mark.parametrize("name", TARGETS)
@settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(choices=st.randoms(use_true_random=False))
def test_damaged_files_are_read_or_refused(name: str, choices: random.Random) -> None:
    try_damaged(name, choices)


def test_time_and_memory_are_bounded() -> None:
    with pytest.raises(MemoryError), bounded():
        bytes(2**31)
    bytes(2**31)  # no longer


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_chunk_of_a_png_that_claims_the_memory(tmp_path: Path) -> None:
    """Pillow asked the memory for all of it at once."""
    path = tmp_path / "mask.png"
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(path)
    content = path.read_bytes()
    at = content.index(b"IDAT") - 4
    path.write_bytes(content[:at] + (2**31 - 1).to_bytes(4, "big") + content[at + 4 :])
    for read in (read_image_rgb, read_mask_values):
        with (
            bounded(),
            pytest.raises(InputError, match=r"mask\.png: .*damaged or truncated \(.+\)"),
        ):
            read(path)


ALIASES = "\n".join(
    f"{key}: &{key} [{','.join([f'*{before}'] * 9)}]"
    for before, key in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        f"a: &a [x]\n{ALIASES}\nnms_kind: *i\n",
        f"a: &a [x]\n{ALIASES}\ndefaults: *i\n",
        "steps: &a [*a]\n",
        f"a: &a [x]\n{ALIASES}\nsteps: !!pairs [score: *i]\n",
    ],
)
def test_aliases_of_yaml_that_stand_for_billions(tmp_path: Path, text: str) -> None:
    """A message had all of them in it: nine lines took minutes and the memory."""
    from src import read_settings

    path = write(tmp_path, "s.yaml", text)
    with bounded(), pytest.raises(InputError, match="aliases stand for more than 100000 values"):
        read_settings(path)


def test_a_few_aliases_are_fine(tmp_path: Path) -> None:
    from src import read_settings

    path = write(tmp_path, "s.yaml", "remove_categories: &a [1, 2]\nscore_threshold: 0.3\n")
    assert list(read_settings(path).remove_categories) == [1, 2]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mask_size_hw", [1e400, 28]),
        ("mask_size_hw", [2**40, 2**40]),
        ("mask_size_hw", [-1, 28]),
        ("category_ids", [2**31]),
        ("category_ids", [1.5]),
        ("max_candidates", 1e400),
    ],
)
def test_numbers_of_a_prediction_store(tmp_path: Path, key: str, value: object) -> None:
    from src.io import read_json_object, seal, write_json

    TARGETS["prediction_store"].write(tmp_path)
    path = tmp_path / "p" / "meta.json"
    content = read_json_object(path) | {key: value}
    content.pop("sha256")
    write_json(path, seal(content))
    with pytest.raises(InputError, match=r"meta\.json: damaged \(a value must be a whole number"):
        read_meta(tmp_path / "p")


def test_images_of_a_prediction_store_are_texts(tmp_path: Path) -> None:
    from src import PredictionStore
    from src.io import seal, write_json

    TARGETS["prediction_store"].write(tmp_path)
    write_json(tmp_path / "p" / "expected_images.json", seal({"image_ids": [["a"]]}))
    with pytest.raises(InputError, match="key 'image_ids' must hold texts"):
        PredictionStore(tmp_path / "p")


def test_counts_of_an_annotation_store_take_no_memory(tmp_path: Path) -> None:
    """Counts of two billion instances were repeated before they were compared."""
    import pyarrow as pa

    target = TARGETS["annotation_store"]
    target.write(tmp_path)
    path = tmp_path / "a.store" / "images.arrow"
    reader = pa.ipc.open_file(pa.BufferReader(path.read_bytes()))
    rows = reader.get_batch(0).to_pylist()
    rows[0]["instances"] = 2**31 - 1
    with pa.ipc.new_file(str(path), reader.schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=reader.schema))
    target.finish(tmp_path)
    error = try_reading("annotation_store", tmp_path)
    assert "image_index must agree with the counts" in str(error)


def test_categories_of_candidates_are_those_of_the_store(tmp_path: Path) -> None:
    from src import PredictionStore
    from src.io import read_json_object, seal, write_json

    TARGETS["prediction_store"].write(tmp_path)
    path = tmp_path / "p" / "meta.json"
    content = read_json_object(path) | {"category_ids": [7232]}
    content.pop("sha256")
    write_json(path, seal(content))
    store = PredictionStore(tmp_path / "p")
    with pytest.raises(InputError, match=r"category \d+ is not one of the store's"):
        [store.candidates(index) for index in range(len(store))]


HALF_PAIR = r'"\ud800"'  # JSON, and YAML, can write what is no text
JSON_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
JSON_FILES = [
    (name, file)
    for name, target in TARGETS.items()
    for file in target.mutations
    if file.endswith(".json")
]


@pytest.mark.parametrize(("name", "file"), JSON_FILES)
def test_half_of_a_surrogate_pair_is_no_text(name: str, file: str, tmp_path: Path) -> None:
    """It was read as text, and raised UnicodeEncodeError where it was written or compared."""
    text = (valid_files(name) / file).read_text()
    places = list(JSON_TEXT.finditer(text))
    for number, place in enumerate(places[:: 1 + len(places) // 20]):
        folder = tmp_path / str(number)
        shutil.copytree(valid_files(name), folder)
        write(folder, file, f"{text[: place.start()]}{HALF_PAIR}{text[place.end() :]}")
        TARGETS[name].finish(folder)
        error = try_reading(name, folder)
        if name != "rle":  # whose counts the test itself reads
            assert r"a string has \ud800, half of a surrogate pair" in str(error)


def test_a_path_that_is_not_of_utf_8_is_read_again(tmp_path: Path) -> None:
    """A store's description and a checkpoint's configuration have it, a surrogate for each byte."""
    folder = tmp_path / os.fsdecode(b"\xe9t\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("the file system takes names of UTF-8 only")
    TARGETS["csv_2019"].write(folder)
    build_store(folder / "a.csv", tmp_path / "store")
    assert len(open_store(tmp_path / "store").images) == 3
    check_plain({"path": str(folder)}, source="checkpoint", key="paths")


def test_half_of_a_surrogate_pair_in_settings(tmp_path: Path) -> None:
    from src import read_settings

    path = write(tmp_path, "s.yaml", f"nms_kind: {HALF_PAIR}\n")
    with pytest.raises(InputError, match=r"s\.yaml: .*a string has \\ud800, half of a surrogate"):
        read_settings(path)


LONG = "x" * 20_000


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (f"ImageId,EncodedPixels,Height,{LONG}", r"got ImageId, EncodedPixels, Height, x+\.\.\."),
        (f"ImageId,{LONG},{LONG}", r"columns must be different, got x+\.\.\. twice"),
    ],
)
def test_a_message_does_not_repeat_a_long_header(tmp_path: Path, header: str, message: str) -> None:
    write(tmp_path, "a.csv", f"{header}\n0.png,1 5,12,9\n")
    with pytest.raises(InputError, match=message) as found:
        build_store(tmp_path / "a.csv", tmp_path / "store")
    assert len(str(found.value)) < 700


def test_a_message_has_its_begin_and_its_end_whatever_a_file_holds() -> None:
    """Of a loader's worker, too, which puts its traceback before the message."""
    error = InputError(f"a.csv, row 1: id must be one of the sample's, got {LONG} (row 7)")
    found = str(error)
    assert len(found) <= MAX_MESSAGE_CHARACTERS
    assert found.startswith("a.csv, row 1: id must be one of the sample's, got xx")
    assert " ... " in found
    assert found.endswith("xx (row 7)")
    of_worker = InputError(
        f"Caught InputError in a worker.\n{LONG}\nsrc.errors.InputError: {error.args[0]}"
    )
    assert one_line(of_worker) == found
    assert str(InputError("short")) == "short"


def test_a_name_of_any_length_that_an_id_repeats(tmp_path: Path) -> None:
    content = {"categories": [{"id": 1, "name": LONG}, {"id": 1, "name": "hat"}]}
    path = write(tmp_path, "labels.json", json.dumps(content))
    with pytest.raises(InputError, match=r"id must differ from that of 'x+, got 1 \(.+\)") as found:
        read_label_descriptions(path)
    assert len(str(found.value)) < 400


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f'{LONG},1 5,1,"1"', r"row 2, image x+\.\.\.: ImageId must be one of the sample's"),
        (f'0,1 5,1,"{"5," * 9_000}5"', r"attributes must be different, got 5,5.*\.\.\."),
        (
            f'0,1 5,1,"9,{",".join(map(str, range(100, 340)))},8"',
            r"attributes must ascend, got 9,100.*\.\.\.",
        ),
    ],
)
def test_a_violation_does_not_repeat_a_long_value(tmp_path: Path, row: str, message: str) -> None:
    header = "ImageId,EncodedPixels,ClassId,AttributesIds"
    path = write(tmp_path, "s.csv", f"{header}\n{row}\n")
    sample = write(tmp_path, "sample.csv", f"{header}\n0,,,\n")
    report = validate_submission(path, sample_submission=sample, competition="imaterialist_2020")
    found = [str(violation) for violation in report.violations]
    assert any(re.search(message, line) for line in found), [line[:200] for line in found]
    assert max(map(len, found)) < 700
