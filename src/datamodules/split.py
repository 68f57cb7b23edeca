"""Validation split: stratified by category, kept in a file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.annotations.categories import class_membership, stratified_folds
from src.annotations.image_names import match_ids
from src.errors import InputError
from src.io import read_json_object, write_json, writing_problem

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Split:
    """Split into validation and training: two disjoint, sorted lists of image ids."""

    validation: tuple[str, ...]
    train: tuple[str, ...]
    seed: int
    annotations: str  # name of the annotation file, without its folder


def write_split(split: Split, path: Path) -> None:
    """Write a split as JSON, atomically."""
    write_json(path, asdict(split), indent=1, sort_keys=False)


def choose_split_file(split_file: Path, fallback: Path | None) -> Path:
    """Return the path of the split, ``fallback`` if ``split_file`` cannot be written."""
    if split_file.exists() or fallback is None:
        return split_file
    if fallback.exists():
        log.info("the split is %s", fallback)
        return fallback
    if problem := writing_problem(split_file.parent):
        reason = f"{split_file} cannot be written ({problem})"
        log.warning("%s: the split is made in %s", reason, fallback)
        return fallback
    return split_file


def _read_ids(content: dict[str, object], part: str, path: Path) -> tuple[str, ...]:
    ids = content.get(part)
    if not isinstance(ids, list) or not all(isinstance(image_id, str) for image_id in ids):
        raise InputError(f"{path}: the key {part!r} must hold a list of image ids, got {ids!r:.80}")
    if not ids:
        raise InputError(f"{path}: the key {part!r} must hold at least one image id, got none")
    return tuple(sorted(ids))


def read_split(path: Path) -> Split:
    """Read a split that ``write_split`` or a person wrote.

    Raises:
        InputError: No such file, no JSON, a key missing or of the wrong type, an empty part, an id
            named twice.
    """
    content = read_json_object(path, missing="no such split file; python -m src.split makes one")
    validation, train = (_read_ids(content, part, path) for part in ("validation", "train"))
    _check_named_once(validation + train, path)
    seed, annotations = content.get("seed"), content.get("annotations")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError(f"{path}: the key 'seed' must hold a whole number, got {seed!r:.80}")
    if not isinstance(annotations, str):
        got = f"{annotations!r:.80}"
        raise InputError(f"{path}: the key 'annotations' must hold a file name, got {got}")
    return Split(validation=validation, train=train, seed=seed, annotations=annotations)


def _check_named_once(image_ids: Sequence[str], path: Path) -> None:
    for image_id, count in Counter(image_ids).items():
        if count > 1:
            raise InputError(f"{path}: image id {image_id!r} must be named once, got it twice")


def check_split(
    split: Split, *, image_ids: Collection[str], split_file: Path, annotations: Path
) -> Split:
    """Return a split with image ids as the annotations spell them; warn of images in no part.

    Raises:
        InputError: Names the split file and the first id that is unknown or in two spellings.
    """
    validation, train = (match_ids(ids, image_ids) for ids in (split.validation, split.train))
    _check_named_once(validation + train, split_file)
    split = replace(split, validation=tuple(sorted(validation)), train=tuple(sorted(train)))
    known = set(image_ids)
    if unknown := [name for name in split.validation + split.train if name not in known]:
        raise InputError(
            f"{split_file}: image id {unknown[0]!r} is not in {annotations}, nor are "
            f"{len(unknown) - 1} others; was the split made from this file or from another "
            f"{split.annotations}?"
        )
    if left_out := len(known) - len(split.validation) - len(split.train):
        log.warning("%s puts %d images of %s in no part", split_file, left_out, annotations)
    return split


@dataclass(frozen=True, slots=True)
class ClassShare:
    """Share of each part's images that have a class, in [0, 1]."""

    category_id: int
    images: int  # with the class, in both parts together
    validation_share: float
    train_share: float

    @property
    def deviation(self) -> float:
        """Absolute difference of the two shares."""
        return abs(self.validation_share - self.train_share)


def _move_to_exact_count(
    chosen: npt.NDArray[np.bool_], membership: npt.NDArray[np.bool_], count: int
) -> npt.NDArray[np.bool_]:
    """Move single images until ``count`` of N are chosen, each time the best one for the shares.

    Compares sums of |chosen_c * rest - rest_c * chosen|, the total deviation of the shares in
    integers, so that the split is the same on every platform. Ties go to the first image.
    ``chosen`` has shape (N,), ``membership`` (N, C).
    """
    chosen = chosen.copy()
    labels, images = membership.astype(np.int64), len(chosen)
    totals = labels.sum(axis=0)
    while (size := int(chosen.sum())) != count:
        step = 1 if size < count else -1
        movable = np.flatnonzero(chosen == (step < 0))
        chosen_after = labels[chosen].sum(axis=0) + step * labels[movable]
        rest_after = totals - chosen_after
        size += step
        deviations = np.abs(chosen_after * (images - size) - rest_after * size)
        chosen[movable[np.argmin(deviations.sum(axis=1))]] = step > 0
    return chosen


def choose_validation(
    *,
    image_ids: Sequence[str],
    category_sets: Sequence[Collection[int]],
    num_validation_images: float,
    seed: int,
) -> list[str]:
    """Choose validation images with the same share of each class as the others.

    Iterative stratification over each image's set of classes: the first of as many folds as come
    nearest to the wanted size (the competition winner: 100 folds, seed 777), from which single
    images are moved until the count is exact. If more than half of the images validate, the fold is
    the training part. The order of the images does not matter.

    Args:
        image_ids: N different ids.
        category_sets: The category ids of the N images.
        num_validation_images: Number to choose, at least 1 and fewer than N; or, below 1, their
            share (the nearest number, at least 1).

    Returns:
        The chosen ids, sorted.

    Raises:
        InputError: ``num_validation_images`` is neither in 1 .. N-1 nor a share.
    """
    total, number = len(image_ids), num_validation_images
    if 0 < number < 1:
        number = max(1, round(number * total))
    if not 1 <= number < total or number != int(number):
        raise InputError(
            f"num_validation_images must be from 1 to {total - 1}, as the annotations hold {total} "
            "images and one is left for training, or a share of them, above 0 and below 1, got "
            f"{num_validation_images}"
        )
    count = int(number)
    order = sorted(range(total), key=lambda index: image_ids[index])
    in_order = [category_sets[index] for index in order]
    fold_size = min(count, total - count)
    in_fold = stratified_folds(in_order, folds=max(2, round(total / fold_size)), seed=seed) == 0
    chosen = in_fold if fold_size == count else ~in_fold
    chosen = _move_to_exact_count(chosen, class_membership(in_order), count)
    return [image_ids[order[position]] for position in np.flatnonzero(chosen)]


def make_split(
    *,
    image_ids: Sequence[str],
    category_sets: Sequence[Collection[int]],
    num_validation_images: float,
    seed: int,
    annotations: str,
) -> Split:
    """Split the images of an annotation file; see ``choose_validation``.

    Raises:
        InputError: No images, or ``num_validation_images`` is not in 1 .. N-1.
    """
    if len(image_ids) == 0:
        raise InputError(f"{annotations}: holds no images, so there is nothing to split")
    validation = choose_validation(
        image_ids=image_ids,
        category_sets=category_sets,
        num_validation_images=num_validation_images,
        seed=seed,
    )
    train = sorted(set(image_ids).difference(validation))
    return Split(tuple(validation), tuple(train), seed, Path(annotations).name)


def class_shares(
    split: Split, *, image_ids: Sequence[str], category_sets: Sequence[Collection[int]]
) -> list[ClassShare]:
    """Return the shares of each class that occurs, ascending by category id."""
    validation, train = set(split.validation), set(split.train)
    membership = class_membership(category_sets)
    in_validation = np.array([image_id in validation for image_id in image_ids], dtype=bool)
    in_train = np.array([image_id in train for image_id in image_ids], dtype=bool)
    categories = sorted(set().union(*category_sets))
    return [
        ClassShare(
            category_id=category,
            images=int((column & (in_validation | in_train)).sum()),
            validation_share=float(column[in_validation].mean()),
            train_share=float(column[in_train].mean()),
        )
        for category, column in zip(categories, membership.T, strict=True)
    ]


def total_deviation(shares: Sequence[ClassShare]) -> float:
    """Return the sum of the classes' deviations; 0 for equal shares."""
    return sum(share.deviation for share in shares)


def load_or_make_split(
    split_file: Path,
    *,
    image_ids: Sequence[str],
    category_sets: Sequence[Collection[int]],
    num_validation_images: float | None,
    seed: int | None,
    annotations: Path,
) -> Split:
    """Read a split file; make it first if missing.

    Args:
        num_validation_images: Number of validation images, or, below 1, their share in a file to
            be made; None: the file's number.
        seed: Seed of the split; None: the file's.

    Raises:
        InputError: The file is missing and the values to make it are too, it disagrees with them,
            or it names images that are not annotated.
    """
    is_share = num_validation_images is not None and 0 < num_validation_images < 1
    if not split_file.exists():
        if num_validation_images is None or seed is None:
            raise InputError(
                f"datamodule.split_file must exist, got {split_file}: no such file; to have it "
                "made, give datamodule.num_validation_images and datamodule.split_seed"
            )
        split = make_split(
            image_ids=image_ids,
            category_sets=category_sets,
            num_validation_images=num_validation_images,
            seed=seed,
            annotations=str(annotations),
        )
        write_split(split, split_file)
        log.info("made the split %s", split_file)
    split = read_split(split_file)
    number = None if is_share else num_validation_images
    for key, wanted, found in (
        ("num_validation_images", number, len(split.validation)),
        ("split_seed", seed, split.seed),
    ):
        if wanted is not None and wanted != found:
            raise InputError(
                f"datamodule.{key} must be {found} (or null), as in {split_file}, got {wanted}; or "
                "give another datamodule.split_file"
            )
    return check_split(split, image_ids=image_ids, split_file=split_file, annotations=annotations)
