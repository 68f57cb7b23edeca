"""The file that says which images validate and which train: JSON, two lists of image ids."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from src.annotations.image_names import match_ids
from src.errors import InputError
from src.io import read_json_object, write_json, writing_problem

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Split:
    """Which images validate and which train: two disjoint lists of image ids, each sorted."""

    validation: tuple[str, ...]
    train: tuple[str, ...]
    seed: int
    annotations: str  # name of the annotation file, without its folder


def write_split(split: Split, path: Path) -> None:
    """Write a split as JSON, whole or not at all."""
    write_json(path, asdict(split), indent=1, sort_keys=False)


def choose_split_file(split_file: Path, fallback: Path | None) -> Path:
    """Return where a split is, or is to be made: beside the data, or where that is read-only.

    Args:
        split_file: where it should be.
        fallback: where it is made instead, and found again, if that cannot be written; None:
            nowhere.
    """
    if split_file.exists() or fallback is None:
        return split_file
    if fallback.exists():
        log.info("the split is %s", fallback)
        return fallback
    if problem := writing_problem(split_file.parent):
        log.warning(
            "%s cannot be written (%s): the split is made in %s", split_file, problem, fallback
        )
        return fallback
    return split_file


def _read_ids(content: dict[str, object], part: str, path: Path) -> tuple[str, ...]:
    ids = content.get(part)
    if not isinstance(ids, list) or not all(isinstance(image_id, str) for image_id in ids):
        raise InputError(f"{path}: the key {part!r} must hold a list of image ids, got {ids!r:.80}")
    if not ids:
        raise InputError(f"{path}: the key {part!r} holds no image ids, at least one is needed")
    return tuple(sorted(ids))


def read_split(path: Path) -> Split:
    """Read a split that ``write_split`` or a person wrote.

    Raises:
        InputError: no such file, no JSON, a key missing or of the wrong type, an empty part, an id
            named twice.
    """
    content = read_json_object(path, missing="no such split file; python -m src.split makes one")
    validation = _read_ids(content, "validation", path)
    train = _read_ids(content, "train", path)
    _check_named_once(validation + train, path)
    seed, annotations = content.get("seed"), content.get("annotations")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError(f"{path}: the key 'seed' must hold a whole number, got {seed!r:.80}")
    if not isinstance(annotations, str):
        raise InputError(
            f"{path}: the key 'annotations' must hold a file name, got {annotations!r:.80}"
        )
    return Split(validation=validation, train=train, seed=seed, annotations=annotations)


def _check_named_once(image_ids: Sequence[str], path: Path) -> None:
    seen: set[str] = set()
    for image_id in image_ids:
        if image_id in seen:
            raise InputError(f"{path}: image id {image_id!r} is named twice, legal is once")
        seen.add(image_id)


def check_split(
    split: Split, *, image_ids: Collection[str], split_file: Path, annotations: Path
) -> Split:
    """Check that every image of a split is annotated; warn of annotated images in no part of it.

    Returns:
        The split with image ids as the annotations spell them.

    Raises:
        InputError: names the split file and the first unknown id, or one that is named in two
            spellings.
    """
    validation, train = (match_ids(ids, image_ids) for ids in (split.validation, split.train))
    _check_named_once(validation + train, split_file)
    split = replace(split, validation=tuple(sorted(validation)), train=tuple(sorted(train)))
    known = set(image_ids)
    unknown = [image_id for image_id in split.validation + split.train if image_id not in known]
    if unknown:
        raise InputError(
            f"{split_file}: image id {unknown[0]!r} is not in {annotations}, nor are "
            f"{len(unknown) - 1} others; was the split made from this file or from another "
            f"{split.annotations}?"
        )
    left_out = len(known) - len(split.validation) - len(split.train)
    if left_out:
        log.warning("%s puts %d images of %s in no part", split_file, left_out, annotations)
    return split
