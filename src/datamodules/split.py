"""The validation split: stratified by category, kept in a file."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

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


@dataclass(frozen=True, slots=True)
class ClassShare:
    """The share of each part's images that carry a class, in [0, 1]."""

    category_id: int
    images: int  # with the class, in both parts together
    validation_share: float
    train_share: float

    @property
    def deviation(self) -> float:
        """Absolute difference of the two shares."""
        return abs(self.validation_share - self.train_share)


def _membership(category_sets: Sequence[Collection[int]]) -> npt.NDArray[np.bool_]:
    """Return which image carries which class.

    Shape (N, C + 2), bool: classes ascending, then two columns of False, because the stratifier
    takes a single column for a plain binary target and refuses it.
    """
    categories = sorted(set().union(*category_sets))
    column = {category: number for number, category in enumerate(categories)}
    membership = np.zeros((len(category_sets), len(categories) + 2), dtype=bool)
    for row, present in enumerate(category_sets):
        membership[row, [column[category] for category in present]] = True
    return membership


def _move_to_exact_count(
    chosen: npt.NDArray[np.bool_], membership: npt.NDArray[np.bool_], count: int
) -> npt.NDArray[np.bool_]:
    """Move single images until ``count`` are chosen, each time the one that serves the shares best.

    Sums of |chosen_c * rest - rest_c * chosen| are compared: the total deviation of the shares in
    whole numbers, so that no platform rounds its way to another split. Ties go to the first image.

    Args:
        chosen: shape (N,), bool.
        membership: shape (N, C), bool.
        count: how many of the N to choose.
    """
    chosen = chosen.copy()
    labels = membership.astype(np.int64)
    totals = labels.sum(axis=0)
    images = len(chosen)
    while (size := int(chosen.sum())) != count:
        step = 1 if size < count else -1
        movable = np.flatnonzero(chosen == (step < 0))
        chosen_after = labels[chosen].sum(axis=0) + step * labels[movable]
        rest_after = totals - chosen_after
        size_after = size + step
        deviations = np.abs(chosen_after * (images - size_after) - rest_after * size_after)
        moved = movable[np.argmin(deviations.sum(axis=1))]
        chosen[moved] = step > 0
    return chosen


def choose_validation(
    *,
    image_ids: Sequence[str],
    category_sets: Sequence[Collection[int]],
    num_validation_images: float,
    seed: int,
) -> list[str]:
    """Choose validation images in which each class has the share that it has in the others.

    Iterative stratification (Sechidis et al. 2011, "On the Stratification of Multi-Label Data")
    over each image's set of classes: the first fold of as many as come nearest to the wanted size
    (the competition winner: 100 folds, seed 777), then single images are moved until the count is
    exact. Where more than half of the images validate, the fold is the training part. The order of
    the images does not matter.

    Args:
        image_ids: N different ids.
        category_sets: the N images' category ids.
        num_validation_images: how many to choose, at least 1 and fewer than N; or, below 1, which
            share of them (the nearest number, at least 1).
        seed: of the stratifier.

    Returns:
        So many ids, sorted.

    Raises:
        InputError: ``num_validation_images`` is not in 1 .. N-1, and no share of them.
    """
    total = len(image_ids)
    number = num_validation_images
    if 0 < number < 1:
        number = max(1, round(number * total))
    if not 1 <= number < total or number != int(number):
        raise InputError(
            f"num_validation_images={num_validation_images}: the annotations hold {total} images, "
            f"1 to {total - 1} is legal (at least one image is left for training), or a share of "
            "them, above 0 and below 1"
        )
    count = int(number)
    order = sorted(range(total), key=lambda index: image_ids[index])
    membership = _membership([category_sets[index] for index in order])
    fold_size = min(count, total - count)
    folds = MultilabelStratifiedKFold(
        n_splits=max(2, round(total / fold_size)), shuffle=True, random_state=seed
    )
    _, first_fold = next(folds.split(np.zeros(total), membership))
    in_fold = np.zeros(total, dtype=bool)
    in_fold[first_fold] = True
    chosen = in_fold if fold_size == count else ~in_fold
    chosen = _move_to_exact_count(chosen, membership, count)
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
        InputError: no images, or ``num_validation_images`` is not in 1 .. N-1.
    """
    if len(image_ids) == 0:
        raise InputError(f"{annotations}: holds no images, so there is nothing to split")
    validation = choose_validation(
        image_ids=image_ids,
        category_sets=category_sets,
        num_validation_images=num_validation_images,
        seed=seed,
    )
    return Split(
        validation=tuple(validation),
        train=tuple(sorted(set(image_ids) - set(validation))),
        seed=seed,
        annotations=Path(annotations).name,
    )


def class_shares(
    split: Split, *, image_ids: Sequence[str], category_sets: Sequence[Collection[int]]
) -> list[ClassShare]:
    """Return the share of each class that occurs, ascending by category id."""
    validation, train = set(split.validation), set(split.train)
    membership = _membership(category_sets)[:, :-2]
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
    """Sum of the classes' deviations; 0 where every class is shared out in proportion."""
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
    """Read a split file; make it first where it is missing.

    Args:
        split_file: the JSON file.
        image_ids: the annotated images.
        category_sets: their category ids.
        num_validation_images: how many images validate, or, below 1, which share where the file is
            made; None: as many as the file says.
        seed: seed of the split; None: that of the file.
        annotations: the annotation file.

    Raises:
        InputError: the file is missing and the values to make it are too, it disagrees with them,
            or it names images that are not annotated.
    """
    is_share = num_validation_images is not None and 0 < num_validation_images < 1
    if not split_file.exists():
        if num_validation_images is None or seed is None:
            raise InputError(
                f"datamodule.split_file={split_file}: no such file; to have it made, give "
                "datamodule.num_validation_images and datamodule.split_seed"
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
    for key, wanted, found in (
        (
            "num_validation_images",
            None if is_share else num_validation_images,
            len(split.validation),
        ),
        ("split_seed", seed, split.seed),
    ):
        if wanted is not None and wanted != found:
            raise InputError(
                f"datamodule.{key}={wanted}, but {split_file} was made with {found}; give "
                f"datamodule.{key}={found} (or null), or another datamodule.split_file"
            )
    return check_split(split, image_ids=image_ids, split_file=split_file, annotations=annotations)
