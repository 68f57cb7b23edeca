"""Read the mask images of one image: a file for each instance, instance ids, or a label map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from src.annotations.image_files import read_header
from src.annotations.mask_folders import MaskedImage
from src.annotations.mask_pixels import read_mask_values
from src.annotations.mask_settings import (
    INSTANCE_FILES,
    INSTANCE_IDS,
    LABEL_MAPS,
    MaskClass,
    MaskImageSettings,
)
from src.annotations.rows import RowError, describe_ids
from src.errors import InputError
from src.rle import Rle, RleBatch, decode, encode
from src.rle.labels import encode_labels

_MOST_BAD_VALUES = 10  # of a file, one by one: an image in place of a map has hundreds

Size = tuple[int, int]
Values = npt.NDArray[np.integer]


@dataclass(slots=True)
class MasksOfImage:
    """What was read of the files of one image."""

    size_hw: Size | None = None  # None where the image is lost
    masks: list[Rle] = field(default_factory=list)
    category_ids: list[int] = field(default_factory=list)
    is_crowd: list[bool] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)  # place and reason
    counts: Counter[str] = field(default_factory=Counter)  # of what is worth a note
    first: dict[str, str] = field(default_factory=dict)  # example of each

    def add(
        self, masks: Sequence[Rle], place: str, category_id: int, *, is_crowd: bool = False
    ) -> None:
        """Take instances of a category from one file."""
        count = len(masks)
        self.masks += masks
        self.category_ids += [category_id] * count
        self.is_crowd += [is_crowd] * count
        self.places += [place] * count

    def refuse_values(self, name: str, reasons: Mapping[int, str]) -> None:
        """Take what is wrong with values of a file, by value: the first ones, and the number."""
        listed = list(reasons.items())[:_MOST_BAD_VALUES]
        self.bad += [(f"{name}, value {value}", reason) for value, reason in listed]
        if len(reasons) > len(listed):
            self.bad.append((name, f"{len(reasons)} values are no class, {len(listed)} are named"))

    def note(self, what: str, example: str, count: int = 1) -> None:
        """Count what a user should know."""
        if count:
            self.counts[what] += count
            self.first.setdefault(what, example)


Reader = Callable[[Path, MaskedImage, MasksOfImage], None]


def make_reader(layout: str, settings: MaskImageSettings) -> Reader:
    """Return the function that reads the files of one image in a folder.

    Raises:
        InputError: The settings do not go with the layout.
    """
    if layout == INSTANCE_FILES:
        return _InstanceFiles(settings)
    if layout == INSTANCE_IDS:
        return _InstanceIds(settings)
    assert layout == LABEL_MAPS
    return _LabelMaps(settings)


class _InstanceFiles:
    """Reads a file for each instance: 0 outside of it, one other value inside."""

    def __init__(self, settings: MaskImageSettings) -> None:
        self._settings = settings
        self._category_id = settings.single_class().category_id

    def __call__(self, root: Path, image: MaskedImage, found: MasksOfImage) -> None:
        """Read the masks of an image; one that is wrong leaves the others."""
        masks: dict[str, Rle] = {}
        for name in image.masks:
            try:
                masks[name] = encode(self._inside(read_mask_values(root / name)))
            except (RowError, InputError) as error:
                found.bad.append((name, _without_path(error, root / name)))
        header_hw = _sizes_of(image.image_path)
        sizes = Counter(mask.size_hw for mask in masks.values())
        found.size_hw = next((size for size in header_hw if size in sizes), None)
        if found.size_hw is None and (header_hw or sizes):
            found.size_hw = header_hw[0] if header_hw else sizes.most_common(1)[0][0]
        if found.size_hw is None:
            if not found.bad:
                problem = "the image must be readable where no mask tells the size, got none"
                found.bad.append((image.place, problem))
            return
        for name, mask in list(masks.items()):
            if mask.size_hw != found.size_hw:
                found.bad.append((name, _other_size(found.size_hw, mask.size_hw)))
                del masks[name]
        self._find_overlaps(masks, found)
        for name, mask in masks.items():
            found.add([mask], name, self._category_id)

    def _inside(self, values: Values) -> npt.NDArray[np.bool_]:
        threshold = self._settings.threshold
        if threshold is not None:
            return np.asarray(values >= threshold)
        highest = values.max()
        inside = np.asarray(values == highest)
        if highest == 0 and inside.all():
            return np.zeros(values.shape, dtype=np.bool_)
        between = ~inside & (values != 0)
        if (count := int(np.count_nonzero(between))) or highest < 0:
            got = values[between][0] if count else highest
            raise RowError(
                f"values must be 0 and one other, got {got} beside {highest} ({count} pixels of "
                "values in between); mask_images.threshold=128 takes 128 and above as inside"
            )
        return inside

    def _find_overlaps(self, masks: dict[str, Rle], found: MasksOfImage) -> None:
        """Count masks that share pixels with an earlier one, or refuse them."""
        if len(masks) < 2 or not _any_shared(RleBatch.of(list(masks.values()))):
            return
        covered = np.zeros(next(iter(masks.values())).size_hw, dtype=np.bool_)
        for name, mask in list(masks.items()):
            bitmap = decode(mask)
            if shared := int(np.count_nonzero(covered & bitmap)):
                if self._settings.overlaps == "refuse":
                    found.bad.append(
                        (
                            name,
                            "must share no pixel with another mask of its image "
                            f"(mask_images.overlaps=refuse), got {shared}",
                        )
                    )
                    del masks[name]
                    continue
                what = "masks that share pixels with an earlier one of their image, kept"
                found.note(what, f"{name}, {shared} px")
            covered |= bitmap


def _any_shared(masks: RleBatch) -> bool:
    """Return whether any two masks of one image have a pixel in common."""
    runs = masks.runs[np.argsort(masks.runs[:, 0], kind="stable")].astype(np.int64)
    ends = np.maximum.accumulate(runs.sum(axis=1))
    return bool((ends[:-1] > runs[1:, 0]).any())


class _InstanceIds:
    """Reads files of instance ids: class and number of the instance, or one class's numbers."""

    def __init__(self, settings: MaskImageSettings) -> None:
        self._settings = settings
        self._divisor = settings.class_divisor
        self._classes = settings.classes
        if self._divisor is None:
            self._one = settings.single_class()
        elif not self._classes or any(0 in one.values for one in self._classes):
            raise InputError(
                "mask_images.classes must name the classes by id, from 1 up, where "
                f"mask_images.class_divisor={self._divisor}, got "
                f"{[one.category_id for one in self._classes] or 'null'}"
            )
        _refuse_components(self._classes, INSTANCE_IDS)
        self._class_of = {value: one for one in self._classes for value in one.values}

    def __call__(self, root: Path, image: MaskedImage, found: MasksOfImage) -> None:
        """Read the ids of an image; one without a class leaves the others."""
        name = image.masks[0]
        labels = _read_single(root, image, self._settings, found)
        if labels is None:
            return
        bad: dict[int, str] = {}
        for value, mask in _each_label(labels):
            if self._divisor is not None:
                if reason := self._add(value, mask, name, self._divisor, found):
                    bad[value] = reason
            elif value < 0:
                bad[value] = f"id must be 0 or more, got {value}"
            elif value and value not in (self._settings.ignored_values or ()):
                found.add([mask], name, self._one.category_id)
        found.refuse_values(name, bad)

    def _add(
        self, value: int, mask: Rle, name: str, divisor: int, found: MasksOfImage
    ) -> str | None:
        """Take the pixels of an id; return what is wrong with it."""
        if 0 <= value < divisor:  # a region: of a class that is not told apart, or of stuff
            if (one := self._class_of.get(value)) is not None:
                found.add([mask], name, one.category_id, is_crowd=True)
            elif value:
                what = f"regions of ids below {divisor} that are no class, left out"
                found.note(what, f"{name}, value {value}")
            return None
        number = value // divisor
        if (one := self._class_of.get(number)) is not None:
            found.add([mask], name, one.category_id)
        elif self._settings.ignored_values is None:
            found.note("instances of ids that are no class, left out", f"{name}, value {value}")
        elif number not in self._settings.ignored_values:
            return (
                f"class must be {_legal(self._class_of)} (or one of mask_images.ignored_values), "
                f"got {value} // {divisor} = {number}"
            )
        return None


class _LabelMaps:
    """Reads label maps: a class is one instance, or each of its connected components is."""

    def __init__(self, settings: MaskImageSettings) -> None:
        self._settings = settings
        if not settings.classes:
            raise InputError(
                f"mask_images.classes must name the classes for mask_images.layout={LABEL_MAPS}, "
                "got null: 'mask_images.classes={1:shirt,2:{name:shoe,instances:components}}'"
            )
        self._class_of = {value: one for one in settings.classes for value in one.values}

    def __call__(self, root: Path, image: MaskedImage, found: MasksOfImage) -> None:
        """Read the labels of an image; one without a class leaves the others."""
        name = image.masks[0]
        labels = _read_single(root, image, self._settings, found)
        if labels is None:
            return
        by_category: dict[int, list[tuple[int, Rle]]] = {}
        bad: dict[int, str] = {}
        for value, mask in _each_label(labels):
            one = self._class_of.get(value)
            if one is not None:
                by_category.setdefault(one.category_id, []).append((value, mask))
            elif self._settings.ignored_values is None:
                what = "regions of labels that are no class, left out"
                found.note(what, f"{name}, value {value}", count=int(value != 0))
            elif value not in self._settings.ignored_values:
                bad[value] = (
                    f"label must be {_legal(self._class_of)} (or one of "
                    f"mask_images.ignored_values), got {value} in {mask.area_px} pixels"
                )
        found.refuse_values(name, bad)
        for one in self._settings.classes:
            if one.category_id in by_category:
                instances = self._instances(one, by_category[one.category_id], labels)
                kept = [mask for mask in instances if mask.area_px >= self._settings.min_area_px]
                found.note(
                    f"instances below {self._settings.min_area_px} px, left out",
                    f"{name}, {one.name}",
                    len(instances) - len(kept),
                )
                found.add(kept, name, one.category_id)

    def _instances(
        self, one: MaskClass, parts: Sequence[tuple[int, Rle]], labels: Values
    ) -> list[Rle]:
        """Return the instances of a class from the masks of its labels."""
        if len(parts) == 1 and not one.in_components:
            return [parts[0][1]]
        left, top, right, bottom = _box_around(RleBatch.of([mask for _, mask in parts]))
        inside = np.isin(labels[top:bottom, left:right], [value for value, _ in parts])
        window: Values = inside.view(np.uint8)
        if one.in_components:
            connectivity = self._settings.connectivity
            window = np.asarray(cv2.connectedComponents(window, connectivity=connectivity)[1])
        whole = np.zeros(labels.shape, dtype=window.dtype)
        whole[top:bottom, left:right] = window
        return [mask for value, mask in _each_label(whole) if value]


def _each_label(labels: Values) -> Iterator[tuple[int, Rle]]:
    values, masks = encode_labels(labels)
    yield from zip(values.tolist(), masks, strict=True)


def _legal(class_of: Mapping[int, MaskClass]) -> str:
    return describe_ids({value: one.name for value, one in class_of.items()})


def _box_around(masks: RleBatch) -> tuple[int, int, int, int]:
    boxes = masks.boxes_xyxy()
    left, top = boxes[:, :2].min(axis=0).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).tolist()
    return left, top, right, bottom


def _refuse_components(classes: Sequence[MaskClass], layout: str) -> None:
    for one in classes:
        if one.in_components:
            raise InputError(
                f"mask_images.classes.{one.category_id}.instances must be whole for "
                f"mask_images.layout={layout}, got components: an id is one instance"
            )


def _read_single(
    root: Path, image: MaskedImage, settings: MaskImageSettings, found: MasksOfImage
) -> Values | None:
    """Read the one file of an image and settle the image's size; None where it is wrong."""
    (name,) = image.masks
    try:
        labels = read_mask_values(root / name, mat_variable=settings.mat_variable)
    except (RowError, InputError) as error:
        found.bad.append((name, _without_path(error, root / name)))
        return None
    height, width = labels.shape
    legal = _sizes_of(image.image_path)
    if legal and (height, width) not in legal:
        found.bad.append((name, _other_size(legal[0], (height, width))))
        return None
    found.size_hw = height, width
    return labels


def _sizes_of(path: Path | None) -> list[Size]:
    """Return the sizes that masks of an image may have: as displayed, as stored; none if unknown.

    An image that is missing or damaged is refused, or not, where the sizes of all are compared.
    """
    if path is None:
        return []
    try:
        header = read_header(path)
    except InputError:
        return []
    return [header.displayed_hw, header.stored_hw]


def _other_size(wanted: Size, got: Size) -> str:
    return (
        f"size must be that of the image, {wanted[0]} x {wanted[1]} px (height x width), got "
        f"{got[0]} x {got[1]}"
    )


def _without_path(error: Exception, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
