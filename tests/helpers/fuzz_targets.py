"""Every parser of files, each with valid files that fuzzing damages, and bounds for reading them.

A damaged file is read, or refused by an ``InputError``: no other exception, no signal, at most
``MAX_CPU_S`` of CPU time, and at most ``MAX_EXTRA_BYTES`` of further address space.
"""

from __future__ import annotations

import json
import random
import re
import resource
import shutil
import signal
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from unittest import mock

import numpy as np
import pyarrow as pa
import scipy.io
import yaml
from PIL import Image
from safetensors.numpy import save_file

from src import PostprocessSettings, postprocess, read_settings, validate_submission
from src.annotations.categories import read_label_descriptions
from src.annotations.formats import ReadingOptions
from src.annotations.image_names import read_image_ids
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.store import describe_files, open_store
from src.annotations.store_builder import build_store
from src.datamodules.split import read_split
from src.errors import InputError
from src.io import read_json_object, seal, write_json
from src.metrics.scoring import open_ground_truth, open_submission
from src.predictions import record_batches
from src.predictions.candidates import Candidates
from src.predictions.files import StoreMeta, read_meta
from src.predictions.store import PredictionStore
from src.rle import Rle, from_coco, parse_rle
from src.rle.coco import from_coco_counts
from src.submission.validation import check_results
from tests.helpers.mask_folders import blocks, save_palette, write_images, write_instance_files
from tests.helpers.mutations import (
    Mutation,
    either,
    mutate_bytes,
    mutate_csv,
    mutate_json,
    mutate_safetensors,
    mutate_yaml,
)
from tests.helpers.results import write_truth_and_results
from tests.helpers.stores import make_images, write_store

MAX_CPU_S = 10
MAX_EXTRA_BYTES = 2**30
SIZE_HW = (12, 9)
CHECKSUM = record_batches._checksum
WINNER = PostprocessSettings.preset("winner_all_classes")
ROWS_2019 = ("0.png,1 5 30 4,12,9,1", "0.png,50 9,12,9,23_3_5", "1.png,1 108,12,9,45")
EMPTY_ROW = "2.png,,12,9,"
ROWS_2020 = ("0.png,1 5 30 4,12,9,1,", '0.png,50 9,12,9,23,"3,5"', "1.png,1 108,12,9,45,")


class OutOfTimeError(BaseException):
    """Reading took longer than ``MAX_CPU_S``."""


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        write: Writes valid files into a folder.
        mutations: How each of the files is damaged, by its path in the folder.
        read: Reads the folder.
        finish: Makes checksums right again, so that the values behind them are read.
    """

    write: Callable[[Path], object]
    mutations: Mapping[str, Mutation]
    read: Callable[[Path], object]
    finish: Callable[[Path], object] = field(default=lambda folder: None)


@contextmanager
def bounded() -> Iterator[None]:
    """Limit CPU time and address space for the block."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTimeError

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    used = pages * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)
    resource.setrlimit(resource.RLIMIT_AS, (used + MAX_EXTRA_BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@cache
def valid_files(name: str) -> Path:
    """Return a folder with the valid files of a target, made once in a process.

    They are read once without bounds: what the libraries reserve when they are first used, such as
    a pool of 1 GiB of address space, is not the file's.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    TARGETS[name].write(folder)
    TARGETS[name].read(folder)
    return folder


def try_damaged(
    name: str, choices: random.Random, *, keep: Path | None = None
) -> InputError | None:
    """Damage a file of a target, and read it.

    Args:
        name: The target.
        choices: Source of the damage.
        keep: Where the damaged folder is left; None: it is removed.

    Returns:
        The error that refuses the file; None: it was read.
    """
    target = TARGETS[name]
    folder = Path(tempfile.mkdtemp(prefix="fuzz-")) if keep is None else keep
    try:
        shutil.copytree(valid_files(name), folder, dirs_exist_ok=True)
        for _ in range(choices.choice((1, 1, 1, 2))):
            file = choices.choice(list(target.mutations))
            path = folder / file
            path.write_bytes(target.mutations[file](path.read_bytes(), choices))
        target.finish(folder)
        return try_reading(name, folder)
    finally:
        if keep is None:
            shutil.rmtree(folder)


def try_reading(name: str, folder: Path) -> InputError | None:
    """Read the files of a target within the bounds; returns the error that refuses them."""
    try:
        with bounded():
            TARGETS[name].read(folder)
    except InputError as error:
        return error
    return None


def _write(folder: Path, name: str, content: str | bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _write_csv_2019(folder: Path) -> None:
    rows = ("ImageId,EncodedPixels,Height,Width,ClassId", *ROWS_2019, EMPTY_ROW)
    _write(folder, "a.csv", "\n".join(rows) + "\n")


def _write_csv_2020(folder: Path) -> None:
    rows = ("ImageId,EncodedPixels,Height,Width,ClassId,AttributesIds", *ROWS_2020)
    _write(folder, "a.csv", "\n".join(rows) + "\n")


def _write_submission(folder: Path) -> None:
    rows = ("ImageId,EncodedPixels,ClassId", "0.png,1 5 30 4,1", "1.png,50 9,23", "2.png,7 1,45")
    _write(folder, "a.csv", "\n".join(rows) + "\n")
    _write(folder, "sample.csv", "\n".join(rows[:3]) + "\n")
    _write_truth(folder)


def _write_truth(folder: Path) -> None:
    rows = ("ImageId,EncodedPixels,Height,Width,ClassId", *ROWS_2019)
    _write(folder, "truth.csv", "\n".join([*rows, "2.png,1 1,12,9,3"]) + "\n")


def _build(name: str, **options: object) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        return build_store(folder / name, folder / "store", ReadingOptions(**options))  # type: ignore[arg-type]

    return read


def _read_bad_rows(folder: Path) -> None:
    """Read a CSV twice: bad rows are left out of the first."""
    build_store(folder / "a.csv", folder / "first", ReadingOptions(on_bad_rows="skip"))
    build_store(folder / "a.csv", folder / "second", ReadingOptions(duplicates="drop"))


def _write_rle(folder: Path) -> None:
    _write(folder, "a.csv", "1 5 30 4 100 9,12,9\n2 1,9,12\n")
    _write(folder, "coco.csv", "5421b0,5,5\n`0:6,10,8\n")
    _write(folder, "counts.json", '{"counts": [3, 5, 100], "size": [12, 9]}')


def _read_rle(folder: Path) -> None:
    for name, parse in (("a.csv", parse_rle), ("coco.csv", from_coco)):
        for line in (folder / name).read_bytes().splitlines():
            text, height, width = (*line.split(b","), b"", b"")[:3]
            size = tuple(
                int(value) if re.fullmatch(rb"[1-9]\d{0,8}", value) else 9
                for value in (height, width)
            )
            masks, problems = parse([text], size)  # type: ignore[operator]
            assert set(problems) <= {0}
            if not problems:
                assert 0 <= masks.areas_px()[0] <= size[0] * size[1]
                masks.boxes_xyxy()
    try:
        content = json.loads((folder / "counts.json").read_text())
        counts, (height, width) = content["counts"], content["size"]
        is_plain = all(type(one) is int and abs(one) < 2**62 for one in (*counts, height, width))
    except (ValueError, TypeError, LookupError, RecursionError):
        return  # of JSON, not of the counts
    if is_plain and min(height, width) > 0 and max(height, width) < 2**16:
        rle = from_coco_counts(counts, (height, width))
        assert isinstance(rle, Rle)
        assert rle.area_px <= height * width


def _write_coco(folder: Path) -> None:
    truth, results = write_truth_and_results(folder, num_images=3, per_image=4)
    content = json.loads(truth.read_text())
    first = content["annotations"][0]
    first["segmentation"] = [[1.5, 1, 20, 1, 20, 30.25]]
    first.pop("bbox"), first.pop("area")
    height, width = content["images"][1]["height"], content["images"][1]["width"]
    counts = [3, 5, height * width - 8]
    content["annotations"][-1] |= {
        "image_id": content["images"][1]["id"],
        "segmentation": {"size": [height, width], "counts": counts},
        "attribute_ids": [1],
    }
    for key in ("bbox", "area"):
        content["annotations"][-1].pop(key)
    content["attributes"] = [{"id": 1, "name": "long"}]
    truth.write_text(json.dumps(content))
    results.write_text(json.dumps(json.loads(results.read_text())[:6]))


def _read_results(folder: Path) -> None:
    check_results(folder / "results.json", "coco")
    with (
        open_ground_truth(folder / "truth.json", competition=_coco()) as truth,
        open_submission(folder / "results.json", truth) as found,
    ):
        for image_id in found:
            found[image_id]


@cache
def _coco() -> object:
    from src.submission.writing import Competition

    return Competition.preset("coco")


def _read_submission(folder: Path) -> None:
    validate_submission(folder / "a.csv", sample_submission=folder / "sample.csv")
    read_image_ids(folder / "sample.csv")
    with (
        open_ground_truth(folder / "truth.csv") as truth,
        open_submission(folder / "a.csv", truth) as found,
    ):
        for image_id in found:
            found[image_id]


def _write_labels(folder: Path) -> None:
    content = {
        "categories": [
            {"id": 1, "name": "shirt", "supercategory": "top"},
            {"id": 5, "name": "hat"},
        ],
        "attributes": [{"id": 3, "name": "long"}],
    }
    _write(folder, "labels.json", json.dumps(content))


def _write_label_maps(folder: Path) -> None:
    write_images(folder / "images", ["a.png", "b.png", "c.png"], size_hw=SIZE_HW)
    values = np.zeros(SIZE_HW, np.uint8)
    values[2:5, 2:6], values[7:9] = 1, 2
    (folder / "maps").mkdir()
    save_palette(values, folder / "maps" / "a.png")
    Image.fromarray(values.astype(np.uint16)).save(folder / "maps" / "b.png")
    scipy.io.savemat(folder / "maps" / "c.mat", {"labels": values}, do_compression=True)


MAPS = MaskImageSettings.from_config(
    {"layout": "label_maps", "classes": {1: "shirt", 2: "hat"}, "mat_variable": None}
)


def _write_store(folder: Path) -> None:
    _write_csv_2019(folder)
    build_store(folder / "a.csv", folder / "a.store")


def _seal_annotations(folder: Path) -> None:
    """Write sizes and checksums anew."""
    store = folder / "a.store"
    try:
        description = read_json_object(store / "store.json")
    except InputError:
        return
    description.pop("sha256", None)
    try:
        write_json(store / "store.json", seal(description | {"files": describe_files(store)}))
    except ValueError:  # a number that JSON has not
        return


def mutate_table(content: bytes, choices: random.Random) -> bytes:
    """Change values of an Arrow table, and write it as it was written."""
    try:
        reader = pa.ipc.open_file(pa.BufferReader(content))
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        number = choices.randrange(len(batches))
        rows = batches[number].to_pylist()
    except Exception:  # damaged before
        return mutate_bytes(content, choices)
    for _ in range(choices.choice((1, 2))):
        if not rows:
            break
        row = choices.choice(rows)
        key = choices.choice(list(row))
        row[key] = _other_value(row[key], choices)
    try:
        batches[number] = pa.RecordBatch.from_pylist(rows, schema=reader.schema)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return content
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, reader.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _other_value(value: object, choices: random.Random) -> object:
    if isinstance(value, list) and value and choices.randrange(4):
        value = list(value)
        place = choices.randrange(len(value))
        if choices.randrange(3) == 0:
            del value[place]
        else:
            value[place] = _other_value(value[place], choices)
        return value
    if isinstance(value, float):
        return choices.choice((float("nan"), float("inf"), -1.0, 0.0, 1e30, 2.0))
    if isinstance(value, str):
        return choices.choice(("", "../x", "/x", "a\n", "x" * 5000, "\x1b[31m", value + " "))
    if isinstance(value, bytes):
        return bytes(choices.choice((0, 255)) for _ in value)
    if isinstance(value, int):
        return choices.choice((-1, 0, 1, value + 1, 2**15 - 1, 2**31 - 1, -(2**31), 2**40))
    return choices.choice((None, [], [1], [-1, 5], 0))


def _read_store(folder: Path) -> None:
    store = open_store(folder / "a.store")
    for index in range(len(store)):
        store.instances(index)
    store.labels, store.notes, store.category_sets(), store.instances_by_category()


def _write_predictions(folder: Path) -> None:
    write_store(folder / "p", make_images(0, 3), images_per_shard=2, expected_image_ids=["000.jpg"])


def _seal_predictions(folder: Path) -> None:
    """Write the checksums of the JSON files anew."""
    for path in (folder / "p").glob("*.json"):
        try:
            content = read_json_object(path)
            content.pop("sha256", None)
            write_json(path, seal(content))
        except ValueError:
            continue
    with suppress(Exception):  # damaged so that there is no checksum
        meta = read_meta(folder / "p")
        schema = record_batches.shard_schema(meta.mask_size_hw, meta.mask_dtype)
        for path in (folder / "p").glob("*.arrow"):
            _seal_shard(path, schema, meta)


def _seal_shard(path: Path, schema: pa.Schema, meta: StoreMeta) -> None:
    """Write the checksum of each image of a shard anew."""
    reader = pa.ipc.open_file(pa.BufferReader(path.read_bytes()))
    if not reader.schema.equals(schema):
        return
    batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    for number, batch in enumerate(batches):
        found: list[int] = []

        def note(candidates: Candidates, found: list[int] = found) -> int:
            found.append(CHECKSUM(candidates))
            return found[-1]

        with mock.patch.object(record_batches, "_checksum", note), suppress(Exception):
            record_batches.from_record_batch(batch, meta.mask_size_hw, meta.mask_dtype)
        if found:
            place = schema.get_field_index("checksum")
            field = schema.field(place)
            batches[number] = batch.set_column(place, field, pa.array(found, pa.uint32()))
    with pa.ipc.new_file(str(path), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _read_predictions(folder: Path) -> None:
    store = PredictionStore(folder / "p")
    store.missing, store.settings, store.category_ids, store.classes, store.fixed_masks  # noqa: B018
    for index in range(len(store)):
        store.candidates(index)
    for detections in postprocess(store, WINNER).values():
        detections.bitmasks.areas_px()


def _write_split(folder: Path) -> None:
    content = {"validation": ["a", "b"], "train": ["c"], "seed": 1, "annotations": "a.csv"}
    _write(folder, "split.json", json.dumps(content))


def _write_settings(folder: Path) -> None:
    content = {
        "defaults": ["winner"],
        "score_threshold": 0.4,
        "score_threshold_per_class": {23: 0.6},
        "max_per_image": 50,
        "remove_categories": [1, "attribute_classes"],
        "steps": ["score", "nms", "remove", "masks", "suppress_overlaps", "min_area"],
        "min_area_raster": "512x512",
    }
    _write(folder, "s.yaml", yaml.safe_dump(content, sort_keys=False))


def _write_weights(folder: Path) -> None:
    import torch

    save_file(
        {"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.int64)}, folder / "a.safetensors"
    )
    torch.save({"state_dict": {"a": torch.zeros(2, 3)}, "epoch": 3}, folder / "a.ckpt")


def _read_weights(folder: Path) -> None:
    from src.mmdet_bridge.checkpoints.reading import load_checkpoint

    load_checkpoint(folder / "a.safetensors")


def _read_checkpoint(folder: Path) -> None:
    from src.mmdet_bridge.checkpoints.reading import load_checkpoint

    load_checkpoint(folder / "a.ckpt")


def mutate_zip(content: bytes, choices: random.Random) -> bytes:
    """Write a zip file anew with a part left out, changed, repeated or compressed."""
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = [(part.filename, archive.read(part)) for part in archive.infolist()]
    except Exception:  # damaged before
        return mutate_bytes(content, choices)
    if not parts:
        return mutate_bytes(content, choices)
    number = choices.randrange(len(parts))
    name, data = parts[number]
    kind = choices.randrange(5)
    if kind == 0:
        del parts[number]
    elif kind == 1:
        parts[number] = (choices.choice((f"../{name}", name.upper(), "/", f"{name}/a")), data)
    elif kind == 2:
        parts.append((f"{name}{len(parts)}", bytes(2**22)))
    else:
        parts[number] = (name, mutate_bytes(data, choices))
    sink = io.BytesIO()
    compression = choices.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(sink, "w", compression) as archive:
        for part_name, part in parts:
            archive.writestr(part_name, part)
    return sink.getvalue()


def mutate_mat(content: bytes, choices: random.Random) -> bytes:
    """Change the bytes inside of a MAT-file's compressed variable, or the file's own."""
    if choices.randrange(3) == 0:
        return mutate_bytes(content, choices)
    try:
        inner = mutate_bytes(zlib.decompress(content[136:]), choices)
    except zlib.error:  # damaged before
        return mutate_bytes(content, choices)
    if choices.randrange(5) == 0:
        inner += bytes(2**24)
    packed = zlib.compress(inner)
    return content[:132] + len(packed).to_bytes(4, "little") + packed


CSV = either(mutate_csv, mutate_csv, mutate_csv, mutate_bytes)
JSON = either(mutate_json, mutate_json, mutate_json, mutate_bytes)
TABLE = either(mutate_table, mutate_table, mutate_bytes)

TARGETS: dict[str, Target] = {
    "csv_2019": Target(_write_csv_2019, {"a.csv": CSV}, _read_bad_rows),
    "csv_2020": Target(_write_csv_2020, {"a.csv": CSV}, _read_bad_rows),
    "rle": Target(
        _write_rle, {"a.csv": CSV, "coco.csv": mutate_bytes, "counts.json": JSON}, _read_rle
    ),
    "coco": Target(_write_coco, {"truth.json": JSON}, _build("truth.json")),
    "coco_results": Target(_write_coco, {"results.json": JSON}, _read_results),
    "submission": Target(_write_submission, {"a.csv": CSV, "sample.csv": CSV}, _read_submission),
    "label_descriptions": Target(
        _write_labels,
        {"labels.json": JSON},
        lambda folder: read_label_descriptions(folder / "labels.json"),
    ),
    "label_maps": Target(
        _write_label_maps,
        {"maps/a.png": mutate_bytes, "maps/b.png": mutate_bytes, "maps/c.mat": mutate_mat},
        lambda folder: build_store(
            folder / "maps",
            folder / "store",
            ReadingOptions(mask_images=MAPS, images_directory=folder / "images"),
        ),
    ),
    "instance_files": Target(
        lambda folder: write_instance_files(
            folder / "stage1", {"x": blocks(SIZE_HW, (1, 1, 5, 5), (6, 2, 9, 9))}, size_hw=SIZE_HW
        ),
        {"stage1/x/masks/0.png": mutate_bytes, "stage1/x/images/x.png": mutate_bytes},
        _build("stage1"),
    ),
    "annotation_store": Target(
        _write_store,
        {
            "a.store/store.json": mutate_json,
            "a.store/images.arrow": mutate_table,
            "a.store/instances.arrow": mutate_table,
            "a.store/runs.arrow": mutate_table,
        },
        _read_store,
        _seal_annotations,
    ),
    "annotation_store_bytes": Target(
        _write_store,
        {
            f"a.store/{name}": mutate_bytes
            for name in ("store.json", "images.arrow", "instances.arrow", "runs.arrow")
        },
        _read_store,
    ),
    "prediction_store": Target(
        _write_predictions,
        {
            "p/meta.json": mutate_json,
            "p/expected_images.json": mutate_json,
            "p/rank00000_done.json": mutate_json,
            "p/rank00000_shard00000.arrow": TABLE,
            "p/rank00000_shard00001.arrow": TABLE,
        },
        _read_predictions,
        _seal_predictions,
    ),
    "split": Target(
        _write_split, {"split.json": JSON}, lambda folder: read_split(folder / "split.json")
    ),
    "settings": Target(
        _write_settings,
        {"s.yaml": either(mutate_yaml, mutate_yaml, mutate_yaml, mutate_bytes)},
        lambda folder: read_settings(folder / "s.yaml"),
    ),
    "safetensors": Target(
        _write_weights,
        {"a.safetensors": either(mutate_safetensors, mutate_safetensors, mutate_bytes)},
        _read_weights,
    ),
    "checkpoint": Target(
        _write_weights, {"a.ckpt": either(mutate_zip, mutate_zip, mutate_bytes)}, _read_checkpoint
    ),
}
