"""Train, tune and submit instance segmentation cascades; the public API, in one import.

    from src import PredictionStore, PostprocessSettings, open_annotations, postprocess, score

    store = PredictionStore("outputs/demo/predictions_validation")
    detections = postprocess(store, PostprocessSettings.preset("winner_all_classes"))
    result = score(detections, open_annotations("outputs/demo/data/train.csv"))
    result.competition_map, result.interval()

A name is imported on first use, so ``import src`` is fast, and names without torch do not load it.

``postprocess``, ``score``, ``compare`` and ``validate_submission`` name modules, too. Python makes
an imported module an attribute of its package, so that ``from src import score`` would give the
function or the module, depending on earlier imports. Here it is always the function: the package
refuses that attribute for its exports. ``python -m src.score``, ``from src.score import
main`` and ``importlib.import_module("src.score")`` find the module; ``import src.score as x`` and
the texts of ``monkeypatch.setattr``, which follow the attribute, find the function.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from src.processes import command_of, name_rank_of_task, take_over_signals

if TYPE_CHECKING:
    from src.api.detections import draw, postprocess, read_settings, write_submission
    from src.api.scores import Annotations, compare, open_annotations, score, sweep
    from src.errors import InputError
    from src.example import write_example
    from src.metrics.competition import CompetitionScore
    from src.metrics.intervals import Interval, PairedInterval
    from src.postprocess.detections import Detections
    from src.postprocess.settings import PostprocessSettings
    from src.predictions.candidates import Candidates
    from src.predictions.store import PredictionStore, PredictionStoreWriter
    from src.rle import Bitmasks, Rle, RleBatch, decode, encode, format_rle, parse_rle
    from src.submission.validation import validate_submission

__all__ = ["Annotations", "Bitmasks", "Candidates", "CompetitionScore", "Detections", "InputError"]
__all__ += ["Interval", "PairedInterval", "PostprocessSettings", "PredictionStore"]
__all__ += ["PredictionStoreWriter", "Rle", "RleBatch", "compare", "decode", "draw", "encode"]
__all__ += ["format_rle", "open_annotations", "parse_rle", "postprocess", "read_settings", "score"]
__all__ += ["sweep", "validate_submission", "write_example", "write_submission"]

_MODULES = {
    "src.api.detections": "draw postprocess read_settings write_submission",
    "src.api.scores": "Annotations compare open_annotations score sweep",
    "src.errors": "InputError",
    "src.example": "write_example",
    "src.metrics.competition": "CompetitionScore",
    "src.metrics.intervals": "Interval PairedInterval",
    "src.postprocess.detections": "Detections",
    "src.postprocess.settings": "PostprocessSettings",
    "src.predictions.candidates": "Candidates",
    "src.predictions.store": "PredictionStore PredictionStoreWriter",
    "src.rle": "Bitmasks Rle RleBatch decode encode format_rle parse_rle",
    "src.submission.validation": "validate_submission",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}


class _Package(ModuleType):
    """This package: its exports are imported when asked for, and no submodule hides one."""

    def __getattr__(self, name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        vars(self)[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _MODULE_OF or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package

# `python -m src.NAME` imports this package before its own module, whose imports take seconds:
# Ctrl-C has to end them well.
if sys.argv[:1] == ["-m"] and (_command := command_of(sys.orig_argv)) is not None:
    take_over_signals(_command)

name_rank_of_task()
