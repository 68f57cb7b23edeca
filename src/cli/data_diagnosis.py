"""Checks of annotations, images and weights: whether they are there, and what they are."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.cli.diagnosis import MIB, Finding
from src.errors import InputError
from src.io import parse_json

HEADER_LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
METADATA_KEY = "__metadata__"


def check_annotations(path: Path, *, is_given: bool) -> Finding:
    """Check that an annotation file or folder is there, and of a known format.

    Args:
        path: The file or folder.
        is_given: Whether the command line names it, so that it must be there.
    """
    from src.annotations.formats import detect_format

    if not path.exists():
        return _missing("annotations", path, is_given=is_given)
    try:
        kind = detect_format(path)
    except InputError as error:
        return Finding("error", "annotations", str(error), "annotations=FILE of docs/own_data.md")
    size = "" if path.is_dir() else f", {path.stat().st_size / MIB:.1f} MiB"
    return Finding("ok", "annotations", f"{path}: {kind}{size}")


def check_images(directory: Path, *, is_given: bool) -> Finding:
    """Check that a folder has images, and that the first of them can be decoded."""
    from src.annotations.image_files import read_header, read_image_rgb
    from src.annotations.image_names import list_images

    if not directory.exists():
        return _missing("images", directory, is_given=is_given)
    try:
        names = list_images(directory).names
        if not names:
            return Finding("error", "images", f"{directory}: no image in it", "images=FOLDER")
        first = directory / names[0]
        height, width = read_header(first).displayed_hw
        read_image_rgb(first)
    except InputError as error:
        return Finding("error", "images", str(error), "replace that file, or images=FOLDER")
    return Finding("ok", "images", f"{directory}: {len(names)} images, the first {width}x{height}")


def check_weights(paths: Sequence[str] | None, known: dict[Path, str]) -> Iterator[Finding]:
    """Check files of weights.

    Args:
        paths: Files that must be there; None: ``known``, which may be missing.
        known: How to get each file, by the file.
    """
    if paths is None:
        for path, remedy in known.items():
            yield (
                check_weights_file(path)
                if path.exists()
                else Finding("warning", "weights", f"{path}: not there", remedy)
            )
        return
    for given in map(Path, paths):
        yield (
            check_weights_file(given)
            if given.exists()
            else Finding("error", "weights", f"{given}: no such file", "weights=[FILE,...]")
        )


def check_weights_file(path: Path) -> Finding:
    """Check that a file is as long as its header says (safetensors), or a zip file (torch)."""
    again = "copy it again, or make it anew (docs/weights.md)"
    try:
        size = path.stat().st_size
        if path.suffix == ".safetensors":
            num_tensors, expected = _read_header(path, size)
            if size != expected:
                text = f"{path}: {size} bytes, where its header says {expected}"
                return Finding("error", "weights", text, again)
            return Finding("ok", "weights", f"{path}: {num_tensors} tensors, {size / MIB:.1f} MiB")
        if not zipfile.is_zipfile(path):
            return Finding("error", "weights", f"{path}: no file of torch 1.6 or newer", again)
    except OSError as error:
        return Finding("error", "weights", f"{path}: {error.strerror}", again)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Finding("error", "weights", f"{path}: damaged header", again)
    return Finding("ok", "weights", f"{path}: {size / MIB:.1f} MiB")


def _read_header(path: Path, size: int) -> tuple[int, int]:
    """Return the number of tensors of a safetensors file, and the size that its header implies."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_LENGTH_BYTES), "little")
        if length > min(size, MAX_HEADER_BYTES):
            raise ValueError("longer than the file")
        header = parse_json(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != METADATA_KEY]
    return len(ends), HEADER_LENGTH_BYTES + length + max(ends, default=0)


def _missing(what: str, path: Path, *, is_given: bool) -> Finding:
    if is_given:
        return Finding("error", what, f"{path}: not there", f"{what}=PATH of what is there")
    remedy = f"the competition's, or {what}=PATH of your own; make demo needs none"
    return Finding("warning", what, f"{path}: not there", remedy)
