"""A search whose best settings are known, and its score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from src.postprocess.settings import PostprocessSettings
from src.tuning.search_space import SearchSpace
from src.tuning.settings_evaluator import Scores
from src.tuning.settings_search import SettingsSearch
from tests.helpers.candidates import make_settings

IMAGES, FOLDS = 20, 4
FOLD_OF = np.arange(IMAGES) % FOLDS
SPACE = SearchSpace(
    {
        "score_threshold": "0.0 to 1.0 by 0.01",
        "nms_kind": ["class_wise", "soft_gaussian"],
        "soft_nms_sigma": "0.1 to 1.0 by 0.1",
    },
    make_settings(),
)


def make_search(
    storage: Path | str, *, name: str = "", identity: Any = None, seed: int = 3
) -> SettingsSearch:
    return SettingsSearch(
        storage,
        name=name,
        identity=identity or {"files": {"a": 1}},
        space=SPACE,
        folds=FOLD_OF,
        seed=seed,
        num_random_trials=6,
    )


def score(settings: PostprocessSettings, wanted: float = 0.3) -> Scores:
    """Best at 0.3; images differ a little."""
    scores: Scores = 1 - np.abs(
        settings.score_threshold - wanted - 0.01 * np.sin(np.arange(IMAGES))
    )
    return scores
