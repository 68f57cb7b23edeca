"""How a folder of mask images is read: the keys of the group ``mask_images``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator

from src.annotations.categories import LARGEST_ID, Category, LabelDescriptions
from src.annotations.rows import describe_ids
from src.errors import InputError
from src.io import printable
from src.validation import CheckedModel, Count, nullable, one_of, shown, whole

AUTO = "auto"
INSTANCE_FILES, INSTANCE_IDS, LABEL_MAPS = "instance_files", "instance_ids", "label_maps"
LAYOUTS = (AUTO, INSTANCE_FILES, INSTANCE_IDS, LABEL_MAPS)
WHOLE, COMPONENTS = "whole", "components"
ALL_OTHERS = "all_others"
_PREFIX = "mask_images."
_LARGEST_VALUE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class MaskClass:
    """A class of mask images."""

    category_id: int
    name: str
    values: tuple[int, ...]  # of pixels; in files of instance ids, of ids divided by class_divisor
    in_components: bool  # whether each connected component is an instance of its own


ONE_CLASS = MaskClass(category_id=1, name="object", values=(1,), in_components=False)
"""The class of instances that nothing is said about."""


def _parse_classes(value: Any) -> tuple[MaskClass, ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping) or not value:
        raise InputError(
            f"{_PREFIX}classes must be null or names by category id, in quotes on a command line "
            f"('{_PREFIX}classes={{1:nucleus}}'), got {shown(value)}"
        )
    # 24 of the command line stands for "24" of a file, which was there before
    by_id = {one.category_id: one for one in (_parse_class(*item) for item in value.items())}
    classes = tuple(by_id.values())
    owner: dict[int, str] = {}
    for one in classes:
        for number in one.values:
            if number in owner:
                raise InputError(
                    f"{_PREFIX}classes must have each value once, got {number} for "
                    f"{printable(owner[number])} and {printable(one.name)}"
                )
            owner[number] = one.name
    return tuple(sorted(classes, key=lambda one: one.category_id))


def _parse_class(key: Any, entry: Any) -> MaskClass:
    try:
        category_id = int(str(key))
    except ValueError:
        category_id = -1
    if not 0 <= category_id <= LARGEST_ID:
        raise InputError(
            f"a key of {_PREFIX}classes must be a category id from 0 to {LARGEST_ID}, got "
            f"{shown(key)}"
        )
    where = f"{_PREFIX}classes.{category_id}"
    if not isinstance(entry, Mapping):
        entry = {"name": entry}
    if others := entry.keys() - {"name", "values", "instances"}:
        raise InputError(
            f"{where} must be a name, or have the keys name, values and instances, got "
            f"{shown(sorted(map(str, others))[0])}"
        )
    name, instances = entry.get("name"), entry.get("instances", WHOLE)
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}.name must be a text, got {shown(name)}")
    if instances not in (WHOLE, COMPONENTS):
        raise InputError(
            f"{where}.instances must be {WHOLE} or {COMPONENTS}, got {shown(instances)}"
        )
    values = entry.get("values", [category_id])
    if (
        not isinstance(values, list | tuple)
        or not values
        or any(type(one) is not int or not 0 <= one <= _LARGEST_VALUE for one in values)
    ):
        raise InputError(
            f"{where}.values must be a list of whole numbers of at least 0, got {shown(values)}"
        )
    return MaskClass(category_id, name, tuple(values), instances == COMPONENTS)


def _parse_ignored(value: Any) -> tuple[int, ...] | None:
    if value == ALL_OTHERS:
        return None
    if not isinstance(value, list | tuple) or any(type(one) is not int for one in value):
        raise InputError(
            f"{_PREFIX}ignored_values must be a list of whole numbers, or {ALL_OTHERS}, got "
            f"{shown(value)}"
        )
    return tuple(value)


def _parse_suffix(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value or "/" in value):
        raise InputError(
            f"{_PREFIX}mask_suffix and image_suffix must be null or an ending of file names, got "
            f"{shown(value)}"
        )
    return value


_Suffix = Annotated[str | None, BeforeValidator(_parse_suffix)]


class MaskImageSettings(CheckedModel):
    """How a folder of mask images is read; ``conf/mask_images/default.yaml`` describes each key.

    Raises:
        InputError: Names each key whose value is not legal, the value and what is legal.
    """

    prefix: ClassVar[str] = _PREFIX

    layout: one_of(*LAYOUTS) = AUTO  # type: ignore[valid-type]
    classes: Annotated[tuple[MaskClass, ...], BeforeValidator(_parse_classes)] = ()
    class_divisor: nullable(whole(2), null="for one class") = None  # type: ignore[valid-type]
    ignored_values: Annotated[tuple[int, ...] | None, BeforeValidator(_parse_ignored)] = (0,)
    threshold: nullable(whole(1), null="to refuse values in between") = None  # type: ignore[valid-type]
    connectivity: one_of(4, 8) = 8  # type: ignore[valid-type]
    min_area_px: Count = 0
    overlaps: one_of("keep", "refuse") = "keep"  # type: ignore[valid-type]
    mask_suffix: _Suffix = None
    image_suffix: _Suffix = None
    mat_variable: str | None = None

    @classmethod
    def from_config(cls, values: Mapping[str, Any] | None) -> MaskImageSettings:
        """Return the settings of a section ``mask_images``; None: the defaults."""
        if not isinstance(values, Mapping | None):
            raise InputError(f"mask_images must be a section of keys, got {shown(values)}")
        return cls(**{str(key): value for key, value in (values or {}).items()})

    def single_class(self) -> MaskClass:
        """Return the one class of all instances.

        Raises:
            InputError: There are several.
        """
        if len(self.classes) > 1:
            names = {one.category_id: one.name for one in self.classes}
            raise InputError(
                f"{_PREFIX}classes must be one class, got {len(names)} ({describe_ids(names)}): "
                f"of several classes, {_PREFIX}layout={INSTANCE_IDS} with {_PREFIX}class_divisor "
                f"and {_PREFIX}layout={LABEL_MAPS} tell which an instance has"
            )
        return self.classes[0] if self.classes else ONE_CLASS

    def labels(self) -> LabelDescriptions:
        """Return the categories, ascending by id."""
        return LabelDescriptions(
            tuple(Category(one.category_id, one.name, "") for one in self.classes or (ONE_CLASS,))
        )
