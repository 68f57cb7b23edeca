"""A new step is one file: settings, checks, command line, evaluator, search and COCO know it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from src.errors import InputError
from src.metrics.competition import ScoreAccumulator
from src.postprocess import steps
from src.postprocess.pipeline import StepCounts, coco_results, postprocess
from src.predictions.store import PredictionStore
from src.tuning.evaluated_image import as_submitted
from src.tuning.search_space import SearchSpace
from src.tuning.settings_evaluator import SettingsEvaluator
from tests.helpers.candidates import DEFAULT_STEPS, make_candidates, make_settings
from tests.helpers.competitions import IMATERIALIST_2019

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
_, _, REST = PAGE.partition("<!-- file: src/postprocess/steps/max_area.py -->\n\n")
STEP = textwrap.dedent(REST.partition("\nThen\n")[0])
ORDER = [*DEFAULT_STEPS, "max_area"]


@pytest.fixture(autouse=True)
def new_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A second folder of steps, with one file."""
    folder = tmp_path / "more_steps"
    folder.mkdir()
    (folder / "max_area.py").write_text(STEP)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "__path__", [*steps.__path__, str(folder)])
        steps.load_steps()
        yield
    sys.modules.pop("src.postprocess.steps.max_area")
    steps.load_steps()
    assert "max_area" not in steps.STEPS


def test_it_has_a_flat_key_whose_value_is_checked() -> None:
    assert make_settings().max_area_px == 0
    assert make_settings(steps=ORDER, max_area_px=20).to_dict()["max_area_px"] == 20
    assert make_settings(max_area_px=20, steps=ORDER) != make_settings(steps=ORDER)
    with pytest.raises(InputError, match=r"^postprocess\.max_area_px must be a whole number of"):
        make_settings(max_area_px=-1)
    with pytest.raises(InputError, match=r"must have max_area for postprocess\.max_area_px=20, "):
        make_settings(max_area_px=20)
    with pytest.raises(InputError, match=r"must have max_area after masks, .*areas are those of"):
        make_settings(steps=["max_area", "masks"])
    with pytest.raises(InputError, match=r"must be of score, nms, .*, min_area, max_area, got 'b'"):
        make_settings(steps=["b"])


def test_the_pipeline_coco_and_the_counts_apply_it() -> None:
    candidates = make_candidates(3, count=120, size_hw=(512, 512), categories=4)
    rules = {"score_threshold": 0.3, "suppress_overlaps": True, "min_area_px": 400}
    whole = postprocess(candidates, make_settings(**rules))
    settings = make_settings(**rules, steps=ORDER, max_area_px=9000)
    found = postprocess(candidates, settings)
    areas = whole.bitmasks.areas_px()
    assert 0 < len(found) < len(whole)
    assert found.bitmasks == whole.bitmasks[areas <= 9000]
    assert found.taken["max_area"] == (areas > 9000).sum()
    counts = StepCounts()
    results = coco_results(candidates, settings, image_number=1, steps=counts)
    assert [result["score"] for result in results] == found.scores.tolist()
    assert counts.taken["max_area"] == found.taken["max_area"]
    assert f"max_area {counts.taken['max_area']}" in str(counts)
    assert settings.step("max_area").reason == "postprocess.max_area_px=9000"


def test_the_evaluator_scores_it_as_the_pipeline_does(store: Path) -> None:
    opened = PredictionStore(store)
    loose = make_settings(score_threshold=0.5)
    ids = opened.category_ids
    ground_truth = {
        image_id: as_submitted(
            postprocess(opened.candidates(index), loose, category_ids=ids),
            filler=IMATERIALIST_2019.filler,
        )
        for index, image_id in enumerate(opened.image_ids)
    }
    grid = [
        make_settings(score_threshold=0.4, steps=order, max_area_px=area)
        for order in (ORDER, [*DEFAULT_STEPS[:-1], "max_area", "min_area"])
        for area in (0, 4000, 9000, 20_000)
    ]
    scores = SettingsEvaluator(
        opened, ground_truth, opened.image_ids, competition=IMATERIALIST_2019
    ).score_grid(grid)
    for found, settings in zip(scores, grid, strict=True):
        plain = ScoreAccumulator(averaging="per_class")
        for index, image_id in enumerate(opened.image_ids):
            detections = postprocess(opened.candidates(index), settings, category_ids=ids)
            plain.add(
                ground_truth[image_id], as_submitted(detections, filler=IMATERIALIST_2019.filler)
            )
        assert np.array_equal(found.values, plain.result().values)
    assert len({score.competition_map for score in scores}) == 4


def test_a_search_tries_it() -> None:
    space = SearchSpace({"max_area_px": "0 to 9000 by 1000"}, make_settings(steps=ORDER))
    found = space.suggest(optuna.trial.FixedTrial({"max_area_px": 4000}))
    assert found == make_settings(steps=ORDER, max_area_px=4000)


def test_the_command_takes_its_key(run: Any, store: Path) -> None:
    order = f"postprocess.steps=[{','.join(ORDER)}]"
    plain = run(f"predictions={store}")
    shown = run(f"predictions={store}", order, "+postprocess.max_area_px=500")
    assert "max_area took" in shown
    assert "max_area" not in plain


def test_two_steps_with_one_key_are_refused(tmp_path: Path) -> None:
    text = STEP.replace("MaxArea", "Other").replace('"max_area"', '"other"')
    (tmp_path / "more_steps" / "other.py").write_text(text)
    with pytest.raises(TypeError, match="have one name or key: max_area_px"):
        steps.load_steps()
    (tmp_path / "more_steps" / "other.py").unlink()
    sys.modules.pop("src.postprocess.steps.other")
