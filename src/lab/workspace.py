"""The opened store of the lab: what the page is told at the start, and settings that it sends."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from src.annotations.competition import Averaging
from src.errors import InputError
from src.lab.controls import describe_controls
from src.metrics.inputs import RasterInstances
from src.postprocess.mask_source import check_fixed_masks, settings_for
from src.postprocess.settings import PRESETS, PostprocessSettings, named_settings, read_values
from src.reporting.palette import category_colour, css_colour
from src.tuning.search_results import InSample, find_in_sample, read_searched
from src.tuning.session import Inputs, Session

log = logging.getLogger(__name__)

IN_SAMPLE_NOTE = (
    "Settings chosen here are scored on the images that they are chosen on: the score is in-sample "
    "and looks better than it will be on new images. python -m src.search gives a cross-validated "
    "one."
)


@dataclass(frozen=True, slots=True)
class LabOptions:
    """Choices of the command that the page needs."""

    averaging: Averaging
    num_resamples: int
    confidence: float
    seed: int
    config_directory: Path  # with the folder ``postprocess`` for settings to write
    settings: Mapping[str, Any]  # at the start, values of the group ``postprocess``
    preset: str  # the name of their option
    # the command that post-processes with an option of the group and some other values
    command: Callable[[str, Mapping[str, Any]], str]
    session_file: Path | None = None  # where the page saves its state; None: nowhere


@dataclass(frozen=True, slots=True)
class Preset:
    """An option of the group ``postprocess``."""

    name: str
    settings: PostprocessSettings
    values: Mapping[str, Any]  # of the file, with the record of a search


@dataclass(frozen=True)
class Workspace:
    """The opened inputs of the lab, and its options."""

    session: Session
    inputs: Inputs
    options: LabOptions
    notes: list[str] = field(default_factory=list)  # on options that are not legal here

    @property
    def image_ids(self) -> Sequence[str]:
        """The images, by their index."""
        return self.session.evaluator.image_ids

    @property
    def has_scores(self) -> bool:
        """Whether any image has ground truth."""
        return self.session.comparison is not None

    @property
    def truth(self) -> RasterInstances | None:
        """The ground truth on the raster of the score."""
        return None if self.session.comparison is None else self.session.comparison.ground_truth

    @property
    def fixed_masks(self) -> str | None:
        """Why no mask threshold can be chosen; None: the store has probabilities."""
        return self.session.store.fixed_masks

    def settings(self, values: Any, *, key: str = "settings") -> PostprocessSettings:
        """Return the settings that a request has.

        Raises:
            InputError: A value is not legal.
        """
        if not isinstance(values, dict):
            raise InputError(f"{key} must be an object of the keys of postprocess")
        try:
            settings = named_settings(values, self.session.categories)
            check_fixed_masks(settings, self.session.store)
            return settings
        except (OverflowError, RecursionError):
            raise InputError(f"{key} must have numbers that a computer counts with") from None

    @cached_property
    def presets(self) -> tuple[Preset, ...]:
        """The options of the group ``postprocess`` that are legal for this data."""
        folders = dict.fromkeys((PRESETS, self.options.config_directory / "postprocess"))
        paths = {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}
        first = ("default", "winner", "winner_all_classes")
        found = []
        for name in sorted(paths, key=lambda name: (name not in first, name)):
            try:
                values = read_values(paths[name])
                read_searched(values, name)
                settings = named_settings(values, self.session.categories)
                found.append(Preset(name, settings_for(settings, self.session.store), values))
            except InputError as error:
                self.notes.append(f"postprocess={name} is left out: {error}")
        return tuple(found)

    def in_sample(self, settings: PostprocessSettings) -> InSample | None:
        """Return the search that found these settings on images of this ground truth, if any."""
        for preset in self.presets:
            if preset.settings == settings and "searched" in preset.values:
                return self._in_sample(preset)
        return None

    def _in_sample(self, preset: Preset) -> InSample | None:
        known = self._in_sample_of
        if preset.name not in known:
            known[preset.name] = find_in_sample(
                preset.values,
                self.session.ground_truth,
                self.session.evaluator.scored_image_ids,
                where=preset.name,
            )
        return known[preset.name]

    @cached_property
    def _in_sample_of(self) -> dict[str, InSample | None]:
        return {}

    @cached_property
    def start(self) -> PostprocessSettings:
        """The settings at the start."""
        settings = named_settings(self.options.settings, self.session.categories)
        return settings_for(settings, self.session.store)

    @cached_property
    def category_ids(self) -> tuple[int, ...]:
        """Every category of the predictions and the ground truth, ascending."""
        truth = self.truth
        of_truth = () if truth is None else truth.store.instances_by_category()
        return tuple(sorted({*self.session.store.category_ids, *of_truth}))

    def name_of(self, category_id: int) -> str:
        """Return the name of a category, its number where the name is not known."""
        return self.session.categories.names.get(category_id, str(category_id))

    def describe(self, saved: Any) -> dict[str, Any]:
        """Return what the page is told at the start; ``saved`` is its last saved state."""
        rules, options = self.session.evaluator.competition, self.options
        return {
            "predictions": self.inputs.predictions,
            "ground_truth": self.inputs.annotations,
            "images": self.inputs.images,
            "competition": {
                "name": rules.name,
                "averaging": options.averaging,
                "raster": rules.raster,
                "scored_on": rules.scored_on,
                "thresholds": list(rules.thresholds),
                "strict": rules.strict,
                "disjoint": rules.disjoint,
            },
            "confidence": options.confidence,
            "num_resamples": options.num_resamples,
            "categories": [
                {"id": id_, "name": self.name_of(id_), "color": css_colour(category_colour(id_))}
                for id_ in self.category_ids
            ],
            "image_list": self.image_list,
            "has_scores": self.has_scores,
            "fixed_masks": self.fixed_masks,
            "controls": describe_controls(self.fixed_masks),
            "presets": [self._describe_preset(preset) for preset in self.presets],
            "settings": self.start.to_dict(),
            "baseline": {"settings": self.start.to_dict(), "name": options.preset},
            "session": saved,
            "in_sample_note": IN_SAMPLE_NOTE if self.has_scores else None,
            "searched": self._searched(self.options.settings, options.preset),
            "notes": [*self.session.notes, *self.notes],
        }

    @cached_property
    def image_list(self) -> list[dict[str, Any]]:
        """The images as the page lists them."""
        store, truth = self.session.store, self.truth
        listed = []
        for index, image_id in enumerate(self.image_ids):
            place = store.index_of(image_id)
            height, width = store.size_hw(place)
            has_truth = truth is not None and image_id in truth
            categories = truth.category_ids(image_id) if truth is not None and has_truth else ()
            listed.append(
                {
                    "index": index,
                    "image_id": image_id,
                    "height": height,
                    "width": width,
                    "num_candidates": store.count(place),
                    "has_truth": has_truth,
                    "truth_category_ids": sorted(categories),
                }
            )
        return listed

    def _describe_preset(self, preset: Preset) -> dict[str, Any]:
        searched = self._searched(preset.values, preset.name)
        note = None
        if searched is not None:
            gain, expected = searched["gain"], searched["cross_validated"]
            held_out = "" if expected is None else f"cross-validated {expected:.4f}, "
            note = (
                f"found by a search, {held_out}{gain['estimate']:+.4f} over the winner's settings "
                f"({gain['confidence']:.0%} interval {gain['low']:+.4f} to {gain['high']:+.4f}): "
                f"{searched['verdict']}"
            )
        return {
            "name": preset.name,
            "settings": preset.settings.to_dict(),
            "is_searched": searched is not None,
            "note": note,
            "searched": searched,
        }

    def _searched(self, values: Mapping[str, Any], name: str) -> dict[str, Any] | None:
        searched = read_searched(values, name)
        if searched is None:
            return None
        return {
            "name": searched.name,
            "cross_validated": getattr(searched, "cross_validated", None),
            "gain": asdict(searched.gain),
            "verdict": searched.verdict,
        }


def key_of(settings: PostprocessSettings) -> str:
    """Return a name of settings: a hash of their values."""
    text = json.dumps(settings.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
