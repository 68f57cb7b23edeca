"""What post-processing can be told; the keys of the configuration group ``postprocess``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml

from src.errors import InputError
from src.postprocess.raster import RASTERS
from src.postprocess.setting_checks import (
    check_categories,
    check_choice,
    check_count,
    check_share,
    check_shares_by_category,
    is_positive,
    is_whole,
)
from src.postprocess.steps import DEFAULT_STEPS, check_steps

NmsKind = Literal["class_wise", "class_agnostic", "soft_linear", "soft_gaussian"]
PRESETS = Path(__file__).resolve().parents[2] / "conf" / "postprocess"
SEARCHED_KEY = "searched"  # where found settings say which images they were searched on
NMS_KINDS: tuple[str, ...] = get_args(NmsKind)
# Groups of categories that remove_categories takes by name. The winner removed the classes that
# carry attributes (S12), which were not predicted, and, at first, the garment parts with a few
# attributes that are noise.
CATEGORY_GROUPS: Mapping[str, tuple[int, ...]] = {
    "attribute_classes": tuple(range(13)),
    "attribute_classes_and_parts": (*range(13), 27, 28, 33),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostprocessSettings:
    """Thresholds and rules, in the order in which they act unless ``steps`` says otherwise.

    Raises:
        InputError: names the key, the bad value and what is legal.

    Example:
        >>> from src import PostprocessSettings
        >>> settings = PostprocessSettings.preset("winner").replace(score_threshold=0.4)
        >>> settings.score_threshold, settings.nms_iou_threshold, settings.min_area_px
        (0.4, 0.3, 20)
    """

    # score: [0, 1]; a pair needs a score strictly above it
    score_threshold: float
    score_threshold_per_class: Mapping[int, float] = field(default_factory=dict)  # in its place
    # nms
    nms_kind: NmsKind = "class_wise"
    nms_iou_threshold: float  # [0, 1]: IoU strictly above it (soft_linear: from it on) counts
    soft_nms_sigma: float = 0.5  # above 0: of soft_gaussian
    soft_nms_min_score: float = 0.001  # [0, 1]: soft-NMS drops what falls below it
    # cap: objects left at most; None: no cap
    max_per_image: int | None
    # remove: category ids that are left out, and names of CATEGORY_GROUPS
    remove_categories: Sequence[int | str]
    # max_per_class: objects of each class at most, the best; None: no cap
    max_per_class: int | None = None
    # masks: (0, 1]; a pixel needs a probability of at least this
    mask_threshold: float
    mask_threshold_per_class: Mapping[int, float] = field(default_factory=dict)  # in its place
    # suppress_overlaps: take from a mask the pixels of same-class masks of higher score
    suppress_overlaps: bool
    # min_area: masks with fewer pixels than this are left out, counted on the raster of this name
    min_area_px: int
    min_area_raster: str = "512x512"  # one of RASTERS
    steps: Sequence[str] = DEFAULT_STEPS

    def __post_init__(self) -> None:
        for key in ("score_threshold", "nms_iou_threshold", "soft_nms_min_score"):
            check_share(key, getattr(self, key))
        check_share("mask_threshold", self.mask_threshold, above_zero=True)
        for key in ("score_threshold_per_class", "mask_threshold_per_class"):
            values = check_shares_by_category(
                key, getattr(self, key), above_zero=key.startswith("mask")
            )
            object.__setattr__(self, key, values)
        check_choice("nms_kind", self.nms_kind, NMS_KINDS)
        if not is_positive(self.soft_nms_sigma):
            raise InputError(
                f"postprocess.soft_nms_sigma={self.soft_nms_sigma!r}: a number above 0 wanted"
            )
        for key in ("max_per_image", "max_per_class"):
            check_count(key, getattr(self, key))
        if not is_whole(self.min_area_px, 0):
            raise InputError(
                f"postprocess.min_area_px={self.min_area_px!r}: a whole number of pixels from 0"
            )
        check_choice("min_area_raster", self.min_area_raster, tuple(RASTERS))
        if not isinstance(self.suppress_overlaps, bool):
            raise InputError(
                f"postprocess.suppress_overlaps={self.suppress_overlaps!r}: true or false"
            )
        check_categories("remove_categories", self.remove_categories, tuple(CATEGORY_GROUPS))
        object.__setattr__(self, "steps", check_steps(self.steps))
        self._check_that_nothing_is_lost()

    def _check_that_nothing_is_lost(self) -> None:
        """Refuse a rule whose step is left out."""
        asked = {
            "score_threshold_per_class": ("score", self.score_threshold_per_class),
            "remove_categories": ("remove", self.remove_categories),
            "max_per_class": ("max_per_class", self.max_per_class is not None),
            "suppress_overlaps": ("suppress_overlaps", self.suppress_overlaps),
            "min_area_px": ("min_area", self.min_area_px),
        }
        for key, (step, is_asked) in asked.items():
            if is_asked and step not in self.steps:
                raise InputError(
                    f"postprocess.{key}={getattr(self, key)!r} without the step {step} in "
                    "postprocess.steps, which would do it"
                )

    @classmethod
    def preset(cls, name: str = "default") -> Self:
        """Return the settings of ``conf/postprocess/NAME.yaml``.

        Raises:
            InputError: There is none of this name.
        """
        return cls(**_preset_values(name))

    def to_dict(self) -> dict[str, Any]:
        """Return all values by key, as plain as in a configuration."""
        values = {key.name: getattr(self, key.name) for key in fields(self)}
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in values.items()
        }

    def replace(self, **values: Any) -> PostprocessSettings:
        """Return settings with other values of some keys.

        Raises:
            InputError: As for the constructor.
        """
        return settings_from({**self.to_dict(), **values})

    @property
    def removed_categories(self) -> frozenset[int]:
        """Category ids that the step ``remove`` leaves out."""
        return frozenset(
            category_id
            for entry in self.remove_categories
            for category_id in (CATEGORY_GROUPS[entry] if isinstance(entry, str) else (entry,))
        )


@cache
def _preset_values(name: str) -> dict[str, Any]:
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name not in names:
        raise InputError(f"preset must be one of {', '.join(names)}, got {name!r}")
    content = yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))
    content.pop(SEARCHED_KEY, None)
    values: dict[str, Any] = {}
    for base in content.pop("defaults", []):
        values |= {} if base == "_self_" else _preset_values(base)
    return values | content


def settings_from(values: Mapping[str, Any]) -> PostprocessSettings:
    """Settings from the configuration group ``postprocess`` as plain values.

    What a search says of them (``searched``, see ``src.tuning.in_sample``) is no setting.

    Raises:
        InputError: a key is unknown or missing, or a value is not legal.
    """
    values = {key: value for key, value in values.items() if key != SEARCHED_KEY}
    known = fields(PostprocessSettings)
    names = [key.name for key in known]
    for name in sorted(values.keys() - set(names)):
        raise InputError(f"postprocess.{name}: no such key; there are {', '.join(names)}")
    for key in known:
        has_default = key.default is not MISSING or key.default_factory is not MISSING
        if key.name not in values and not has_default:
            raise InputError(f"postprocess.{key.name}: missing; postprocess=default has all keys")
    return PostprocessSettings(**values)
