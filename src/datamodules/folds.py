"""Which images validate: iterative stratification over the classes on each image."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

from src.datamodules.split_file import Split, check_split, read_split, write_split
from src.errors import InputError

log = logging.getLogger(__name__)


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
    validation_images: float,
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
        validation_images: how many to choose, at least 1 and fewer than N; or, below 1, which
            share of them (the nearest number, at least 1).
        seed: of the stratifier.

    Returns:
        So many ids, sorted.

    Raises:
        InputError: ``validation_images`` is not in 1 .. N-1, and no share of them.
    """
    total = len(image_ids)
    number = validation_images
    if 0 < number < 1:
        number = max(1, round(number * total))
    if not 1 <= number < total or number != int(number):
        raise InputError(
            f"validation_images={validation_images}: the annotations hold {total} images, "
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
    validation_images: float,
    seed: int,
    annotations: str,
) -> Split:
    """Split the images of an annotation file; see ``choose_validation``.

    Raises:
        InputError: no images, or ``validation_images`` is not in 1 .. N-1.
    """
    if len(image_ids) == 0:
        raise InputError(f"{annotations}: holds no images, so there is nothing to split")
    validation = choose_validation(
        image_ids=image_ids,
        category_sets=category_sets,
        validation_images=validation_images,
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
    validation_images: float | None,
    seed: int | None,
    annotations: Path,
) -> Split:
    """Read a split file; make it first where it is missing.

    Args:
        split_file: the JSON file.
        image_ids: the annotated images.
        category_sets: their category ids.
        validation_images: how many images validate, or, below 1, which share where the file is
            made; None: as many as the file says.
        seed: seed of the split; None: that of the file.
        annotations: the annotation file.

    Raises:
        InputError: the file is missing and the values to make it are too, it disagrees with them,
            or it names images that are not annotated.
    """
    is_share = validation_images is not None and 0 < validation_images < 1
    if not split_file.exists():
        if validation_images is None or seed is None:
            raise InputError(
                f"datamodule.split_file={split_file}: no such file; to have it made, give "
                "datamodule.validation_images and datamodule.split_seed"
            )
        split = make_split(
            image_ids=image_ids,
            category_sets=category_sets,
            validation_images=validation_images,
            seed=seed,
            annotations=str(annotations),
        )
        write_split(split, split_file)
        log.info("made the split %s", split_file)
    split = read_split(split_file)
    for key, wanted, found in (
        ("validation_images", None if is_share else validation_images, len(split.validation)),
        ("split_seed", seed, split.seed),
    ):
        if wanted is not None and wanted != found:
            raise InputError(
                f"datamodule.{key}={wanted}, but {split_file} was made with {found}; give "
                f"datamodule.{key}={found} (or null), or another datamodule.split_file"
            )
    return check_split(split, image_ids=image_ids, split_file=split_file, annotations=annotations)
