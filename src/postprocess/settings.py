"""Settings of post-processing: the keys of the configuration group ``postprocess``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from src.errors import InputError
from src.io import read_preset, read_yaml_values
from src.postprocess.category_names import CategoryIds, CategoryNames, FindCategory
from src.postprocess.steps import STEPS, Step, bind, check_steps
from src.postprocess.steps.masks import Masks
from src.validation import problems, shown

PRESETS = Path(__file__).resolve().parents[2] / "conf" / "postprocess"
SEARCHED_KEY = "searched"  # where found settings say which images they were searched on


class PostprocessSettings:
    """Thresholds and rules: the values of all steps by key, and the order in which steps act.

    Each key is also an attribute. Settings are immutable; ``replace`` returns new ones.

    Args:
        values: By key, such as ``min_area_px=20``. A key that is not given has its value of the
            preset ``default``: mmdetection's COCO defaults (S8).

    Raises:
        InputError: Names the key, the bad value and what is legal.

    Example:
        >>> from src import PostprocessSettings
        >>> settings = PostprocessSettings.preset("winner").replace(score_threshold=0.4)
        >>> settings.score_threshold, settings.nms_iou_threshold, settings.min_area_px
        (0.4, 0.3, 20)
    """

    def __init__(self, **values: Any) -> None:
        self._set({**_preset_values("default"), **values})

    @classmethod
    def preset(cls, name: str = "default") -> Self:
        """Return the settings of a file in ``conf/postprocess``: ``default``, ``winner``, ...

        Raises:
            InputError: There is no such file, or its values are not legal.
        """
        return cls(**_preset_values(name))

    @classmethod
    def from_config(
        cls, values: Mapping[str, Any], find_category: FindCategory | None = None
    ) -> Self:
        """Return the settings of a configuration, which must have all required keys.

        The key ``searched`` (see ``src.tuning.search_results``) is ignored.

        Args:
            values: Plain values of the group.
            find_category: Returns the id of a category by name; None: names are not legal.

        Raises:
            InputError: A key is unknown or missing, or a value is not legal.
        """
        made = cls.__new__(cls)
        made._set(values, find_category)
        return made

    def _set(self, values: Mapping[str, Any], find_category: FindCategory | None = None) -> None:
        values = {key: value for key, value in values.items() if key != SEARCHED_KEY}
        steps = values.pop("steps", _preset_values("default")["steps"])
        self.steps = check_steps(steps, known_steps())
        self._step = _make_steps(values, find_category)
        for step in self._step.values():
            for key in step.rules:
                value = getattr(step, key)
                default = type(step).model_fields[key].get_default(call_default_factory=True)
                if value and value != default and step.name not in self.steps:
                    raise InputError(
                        f"postprocess.steps must have {step.name} for postprocess.{key}="
                        f"{shown(value)}, got [{', '.join(self.steps)}]"
                    )
        masks_at = self.steps.index("masks")
        pipeline = bind([self._step[name] for name in self.steps])
        self.before_masks, self.from_masks = pipeline[:masks_at], pipeline[masks_at:]
        after = self.from_masks[1:]
        self.selection_key: Hashable = tuple(step.cache_key for step in self.before_masks)
        self.is_per_category = all(step.is_per_category for step in after)
        self.uses_scores = any(step.uses_scores for step in after)
        self._category_keys: dict[int, Hashable] = {}

    def __getattr__(self, key: str) -> Any:
        if not key.startswith("_"):
            for step in self._step.values():
                if key in type(step).model_fields:
                    return getattr(step, key)
        raise AttributeError(f"post-processing has no setting {key!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.to_dict()]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PostprocessSettings) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.selection_key, self.steps))

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={value!r}" for key, value in self.to_dict().items())
        return f"PostprocessSettings({values})"

    def to_dict(self) -> dict[str, Any]:
        """Return all values by key, as plain as in a configuration."""
        values = {key: value for step in self._step.values() for key, value in step}
        return {**values, "steps": list(self.steps)}

    def replace(self, **values: Any) -> Self:
        """Return settings with other values of some keys.

        Raises:
            InputError: As for the constructor.
        """
        return type(self)(**{**self.to_dict(), **values})

    def step(self, name: str) -> Step:
        """Return a step by name, whether it acts or not."""
        return self._step[name]

    @property
    def masks(self) -> Masks:
        """The step that draws the masks."""
        step = self._step["masks"]
        assert isinstance(step, Masks)
        return step

    @property
    def rasters(self) -> frozenset[str]:
        """Names of the rasters on which the steps need masks."""
        return frozenset[str]().union(*(step.rasters for step in self.from_masks))

    @property
    def removed_categories(self) -> frozenset[int]:
        """Ids of the categories that steps remove."""
        return frozenset[int]().union(*(step.removed_categories for step in self._step.values()))

    def category_key(self, category: int) -> Hashable:
        """Return everything that decides, from the masks on, what is left of one category."""
        if category not in self._category_keys:
            keys = ((step.name, step.category_key(category)) for step in self.from_masks)
            self._category_keys[category] = tuple(keys)
        return self._category_keys[category]


def named_settings(values: Mapping[str, Any], categories: CategoryNames) -> PostprocessSettings:
    """Return settings whose categories may be given by name as well as by id.

    Args:
        values: Of the configuration group ``postprocess``.
        categories: Categories of the predictions.

    Raises:
        InputError: A value is not legal, a name is unknown or ambiguous, or a group stands for
            categories that the data does not have.
    """
    settings = PostprocessSettings.from_config(values, categories.id_of)
    is_competition = categories.is_competition or categories.has_only_competition_names
    for key in keys_of_kind(CategoryIds):
        groups = [entry for entry in getattr(settings, key) if isinstance(entry, str)]
        if groups and not is_competition:
            raise InputError(
                f"postprocess.{key} must be ids or names of categories of {categories.source}, got "
                f"{groups[0]}: that stands for categories of iMaterialist (Fashion); its own are "
                f"{categories.describe(sorted(categories.names))}"
            )
    return settings


def plain_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings, except names of categories, and return them as plain JSON values.

    Raises:
        InputError: As for ``PostprocessSettings``.
    """
    return PostprocessSettings.from_config(values, lambda _key, name: name).to_dict()


def _make_steps(values: Mapping[str, Any], find_category: FindCategory | None) -> dict[str, Step]:
    """Return all steps by name, including those that do not act."""
    fields = setting_fields()
    if unknown := sorted(set(values) - set(fields)):
        raise InputError(
            f"postprocess must have keys among {', '.join(fields)}, steps; got {unknown[0]}"
        )
    for key, field in fields.items():
        if key not in values and field.is_required():
            raise InputError(
                f"postprocess.{key} must be given, got nothing; postprocess=default has all keys"
            )
    steps, found = {}, []
    for name, kind in known_steps().items():
        own = {key: values[key] for key in kind.model_fields if key in values}
        try:
            steps[name] = kind.model_validate(own, context=find_category)
        except ValidationError as error:
            found += problems(error, "postprocess.")
    if found:
        raise InputError("; ".join(found))
    return steps


def known_steps() -> dict[str, type[Step]]:
    """Return all steps by name: those of the default order, then the others."""
    order = [name for name in _preset_values("default")["steps"] if name in STEPS]
    return {name: STEPS[name] for name in dict.fromkeys([*order, *STEPS])}


def setting_fields() -> dict[str, Any]:
    """Return pydantic's field of each key except ``steps``."""
    return {
        key: field for kind in known_steps().values() for key, field in kind.model_fields.items()
    }


def conditions() -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Return ``matters_for`` of all steps: keys that matter for some values of another key."""
    return {key: rule for kind in STEPS.values() for key, rule in kind.matters_for.items()}


def keys_of_kind(kind: type) -> tuple[str, ...]:
    """Return the keys whose type is annotated with an instance of ``kind``, e.g. ``ByCategory``."""
    fields = setting_fields().items()
    return tuple(key for key, field in fields if any(isinstance(p, kind) for p in field.metadata))


@cache
def _preset_values(name: str) -> dict[str, Any]:
    return read_preset(PRESETS, name, key="preset")


def read_values(path: Path) -> dict[str, Any]:
    """Read a YAML file of the group, with the values of the files in its ``defaults``."""
    return read_yaml_values(path, presets=PRESETS)
