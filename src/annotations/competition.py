"""A competition as a value: raster, submission, categories, filler row, disjointness and metric.

``conf/competition/NAME.yaml`` has the values of the known ones; another one is a file there.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator

from src.annotations.categories import IMATERIALIST_2019_LABELS
from src.annotations.image_names import short_id
from src.errors import InputError
from src.io import read_preset
from src.rle import Bitmasks, parse_rle
from src.rle.masks import Size
from src.validation import CheckedModel, Count, Flag, Legal, shown

PRESETS = Path(__file__).resolve().parents[2] / "conf" / "competition"
NATIVE = "native"
ANY_SUFFIX = ".*"
LABEL_COLUMNS = ("ClassId", "CategoryId", "AttributesIds")
_FIXED = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_LONG_EDGE = re.compile(r"long_edge_([1-9][0-9]{0,4})")
_LEGAL_RASTERS = "HEIGHTxWIDTH as 512x512, long_edge_PIXELS as long_edge_1024, or native"

# Ten literals: arange(0.5, 1, 0.05) drifts off them. An IoU is one correctly rounded division of
# integers, so where the exact ratio equals a threshold (11/20 and 0.55) both are the same double,
# and ``>`` is as strict as in exact arithmetic.
THRESHOLDS = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)

Averaging = Literal["per_class", "pooled"]


def raster_hw(raster: str, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a raster for an image.

    Args:
        raster: ``512x512`` (any height and width: one raster for all images), ``long_edge_1024``
            (any number: the short edge keeps the aspect ratio, rounded to the nearest pixel, a half
            up, at least 1), or ``native`` (the image's own pixels).
        size_hw: Height and width of the image in pixels.

    Raises:
        InputError: There is no such raster.
    """
    if raster == NATIVE:
        return size_hw
    if fixed := _FIXED.fullmatch(raster):
        return int(fixed[1]), int(fixed[2])
    if edge := _LONG_EDGE.fullmatch(raster):
        long = max(size_hw)
        height, width = (max(1, (2 * px * int(edge[1]) + long) // (2 * long)) for px in size_hw)
        return height, width
    raise InputError(f"raster must be {_LEGAL_RASTERS}, got {shown(raster)}")


def _check_raster(raster: str) -> str:
    try:
        raster_hw(raster, (1, 1))
    except InputError:
        raise ValueError from None
    return raster


Raster = Annotated[str, AfterValidator(_check_raster), Legal(_LEGAL_RASTERS)]
"""Name of a raster, see ``raster_hw``."""


@dataclass(frozen=True, slots=True)
class MatchRule:
    """When a detection is a true positive: the IoU thresholds, and whether one must be exceeded."""

    thresholds: tuple[float, ...] = THRESHOLDS  # ascending
    strict: bool = True

    def num_passed(self, ious: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return how many thresholds each IoU passes; as they ascend, these are the first ones."""
        side: Literal["left", "right"] = "left" if self.strict else "right"
        return np.searchsorted(self.thresholds, ious, side=side).astype(np.int64)


def _check_ascending(thresholds: tuple[float, ...]) -> tuple[float, ...]:
    if not thresholds or any(a >= b for a, b in itertools.pairwise(thresholds)):
        raise ValueError
    if not thresholds[0] > 0 or thresholds[-1] > 1:
        raise ValueError
    return thresholds


def _check_rle(text: str) -> str:
    parsed = parse_rle([text], (1 << 15, 1 << 15))
    if parsed.problems or not text.strip():
        raise ValueError
    return text


def _check_columns(columns: tuple[str, ...]) -> tuple[str, ...]:
    known = {"ImageId", "EncodedPixels", *LABEL_COLUMNS}
    if not {"ImageId", "EncodedPixels"} <= set(columns) <= known or len(set(columns)) < len(
        columns
    ):
        raise ValueError
    if {"ClassId", "CategoryId"} <= set(columns):
        raise ValueError
    return columns


class Filler(CheckedModel):
    """The row of an image without a detection."""

    prefix: ClassVar[str] = "competition.filler."

    encoded_pixels: Annotated[
        str, AfterValidator(_check_rle), Legal("RLE of at least one pixel, as 1 1")
    ]
    category_id: Count

    def bitmasks(self, raster: Size) -> Bitmasks:
        """Return its mask on a raster."""
        return Bitmasks.of(parse_rle([self.encoded_pixels], raster).masks, raster)


class Competition(CheckedModel):
    """The rules of a competition.

    Attributes:
        name: The name in messages and result files.
        raster: Where masks are submitted, see ``raster_hw``.
        score_raster: Where they are compared; None: where they are submitted.
        file: ``csv``, or ``coco_results``: a JSON list of detections with scores.
        columns: The columns of a CSV submission in order: ImageId, EncodedPixels, and the category
            as ClassId (2019: with attributes behind ``_``) or as CategoryId; AttributesIds.
        image_id_suffix: What image ids lack of the file names, as ``.jpg``; ``.*`` is any suffix.
        categories: Name by id; ``imaterialist_2019`` stands for its 46. None: those of the data.
        filler: The row of an image without a detection; None: a row with its name alone.
        disjoint: Which masks of an image may not overlap: those of a ``class``, ``all``, ``none``.
        averaging: ``per_class`` or ``pooled``, see ``src.metrics.competition``.
        thresholds: IoU thresholds, ascending.
        strict: Whether an IoU must exceed a threshold; false: reaching it is enough.

    Raises:
        InputError: Names each key whose value is not legal.
    """

    prefix: ClassVar[str] = "competition."

    name: str
    raster: Raster
    score_raster: Raster | None = None
    file: Literal["csv", "coco_results"] = "csv"
    columns: Annotated[
        tuple[str, ...],
        AfterValidator(_check_columns),
        Legal("ImageId and EncodedPixels, with ClassId or CategoryId, and with AttributesIds"),
    ] = ("ImageId", "EncodedPixels", "ClassId")
    image_id_suffix: str = ""
    categories: (
        Annotated[dict[int, str], Legal("name by category id")]
        | Literal["imaterialist_2019"]
        | None
    ) = None
    filler: Filler | None = None
    disjoint: Literal["class", "all", "none"] = "class"
    averaging: Averaging = "per_class"
    thresholds: Annotated[
        tuple[float, ...],
        AfterValidator(_check_ascending),
        Legal("ascending numbers above 0, at most 1"),
    ] = THRESHOLDS
    strict: Flag = True

    @classmethod
    def preset(cls, name: str) -> Competition:
        """Return the competition of ``conf/competition/NAME.yaml``.

        Raises:
            InputError: There is no such file; names those there are.
        """
        return _preset(name)

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Competition:
        """Return the competition of a configuration's group; other keys than its own are refused.

        Raises:
            InputError: As for the constructor.
        """
        values = dict(values)
        if isinstance(values.get("filler"), Mapping):
            values["filler"] = Filler(**values["filler"])
        for key in ("columns", "thresholds"):
            if isinstance(values.get(key), list):
                values[key] = tuple(values[key])
        return cls(**values)

    @property
    def rule(self) -> MatchRule:
        """When a detection is a true positive."""
        return MatchRule(self.thresholds, self.strict)

    @property
    def category_names(self) -> Mapping[int, str]:
        """Name by category id; empty where any category is legal."""
        if self.categories == "imaterialist_2019":
            return IMATERIALIST_2019_LABELS.category_names
        return dict(self.categories or {})

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of the category and of attributes."""
        return tuple(name for name in self.columns if name in LABEL_COLUMNS)

    @property
    def only_category(self) -> int | None:
        """The category of every row where no column has it; None: columns have it."""
        return None if self.label_columns else min(self.category_names, default=1)

    def split_label(self, *label: str) -> tuple[str, list[str]]:
        """Return the texts of category and attributes, given those of ``label_columns``."""
        values = dict(zip(self.label_columns, label, strict=True))
        if not values:
            return str(self.only_category), []
        category = values.get("ClassId", values.get("CategoryId", "")).strip()
        if "AttributesIds" in values:
            attributes = values["AttributesIds"].strip()
            return category, attributes.split(",") if attributes else []
        category, *attributes_2019 = category.split("_")
        return category, attributes_2019

    @property
    def scored_on(self) -> str:
        """Name of the raster on which masks are compared."""
        return self.score_raster or self.raster

    def scored_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the raster on which the masks of an image are compared."""
        return raster_hw(self.scored_on, size_hw)

    def is_of(self, category_names: Mapping[int, str]) -> bool:
        """Return whether data is of the competition's categories, the filler's among them.

        Only there is the filler row a prediction, and do the rules for categories hold.

        Args:
            category_names: Name by category id of the data.
        """
        known = self.category_names
        if not known:
            return True
        if not category_names.keys() <= known.keys():
            return False
        if self.filler is None:
            return True
        name = category_names.get(self.filler.category_id, "")
        return name.strip().casefold() == known[self.filler.category_id].casefold()

    def for_data(self, category_names: Mapping[int, str]) -> Competition:
        """Return the competition, without filler row and categories for data of others."""
        return self if self.is_of(category_names) else self.without_categories()

    def for_submission(
        self, category_names: Mapping[int, str], category_ids: Iterable[int], *, has_sample: bool
    ) -> Competition:
        """Return the rules of a submission, which are those for other data where it is none.

        With a sample submission it is one of a model of some of the categories, too, even without
        the filler's.

        Args:
            category_names: Name by category id of the predictions, where they are known.
            category_ids: Their categories.
            has_sample: Whether the images are those of a sample submission.

        Raises:
            InputError: No column has the category, and there are several.
        """
        category_ids = set(category_ids)
        self.check_columns(category_ids)
        known = self.category_names
        is_own = self.is_of(category_names) or (
            has_sample and category_ids <= known.keys() and category_names.items() <= known.items()
        )
        return self if is_own else self.without_categories()

    def check_columns(self, category_ids: Iterable[int]) -> None:
        """Refuse categories that a submission of this competition has no column for.

        Raises:
            InputError: No column has the category, and there are several.
        """
        count = len(set(category_ids))
        if not self.label_columns and self.file == "csv" and count > 1:
            raise InputError(
                f"competition.columns must have ClassId or CategoryId for {count} categories, got "
                f"{', '.join(self.columns)}"
            )

    def without_categories(self) -> Competition:
        """Return the competition with any category legal, and without a filler row."""
        return self.model_copy(update={"filler": None, "categories": None})

    @property
    def score_rules(self) -> dict[str, Any]:
        """Everything that a score depends on, except the averaging, as plain JSON values."""
        filler = None if self.filler is None else self.filler.model_dump()
        rules = {"raster": self.scored_on, "filler": filler, "strict": self.strict}
        return {**rules, "thresholds": list(self.thresholds)}

    def image_id(self, image_id: str) -> str:
        """Return an image id as the submission spells it; see ``short_id``."""
        if self.image_id_suffix == ANY_SUFFIX:
            return short_id(image_id)
        return image_id.removesuffix(self.image_id_suffix)


@cache
def _preset(name: str) -> Competition:
    return Competition.from_config(read_preset(PRESETS, name, key="competition"))
