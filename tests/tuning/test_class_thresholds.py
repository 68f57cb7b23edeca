"""Thresholds of classes: the counts put together are the scores of the settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from src.metrics.competition import AVERAGINGS
from src.metrics.scoring import open_ground_truth
from src.predictions.store import PredictionStore
from src.tuning.cross_validation import count_classes
from src.tuning.settings_evaluator import SettingsEvaluator
from tests.helpers.candidates import make_settings
from tests.helpers.competitions import IMATERIALIST_2019
from tests.helpers.lab_data import CATEGORIES, REAL_ABOVE, write_lab_data

VALUES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.97)
SETTINGS = make_settings(score_threshold=0.5, nms_iou_threshold=0.5, suppress_overlaps=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    store, ground_truth = write_lab_data(tmp_path_factory.mktemp("lab"), images=24)
    with open_ground_truth(ground_truth) as objects:
        opened = PredictionStore(store)
        yield SettingsEvaluator(
            opened,
            {i: objects[i] for i in objects},
            opened.image_ids,
            competition=IMATERIALIST_2019,
        )


@pytest.mark.parametrize("averaging", AVERAGINGS)
@pytest.mark.parametrize("key", ["score_threshold_per_class", "mask_threshold_per_class"])
def test_any_combination_scores_as_its_settings(lab, averaging, key):
    """Those too that leave images without an object, which then have the filler."""
    table = count_classes(lab, SETTINGS, key, VALUES)
    assert table.values == (0.5, 0.2, 0.35, 0.65, 0.8, 0.97)
    random = np.random.default_rng(0)
    combinations = [*random.integers(0, len(VALUES), (6, len(table.categories)))]
    combinations.append(np.full(len(table.categories), 5))
    fillers = 0
    for chosen in combinations:
        own = {key: float(table.values[v]) for key, v in zip(table.categories, chosen, strict=True)}
        settings = SETTINGS.replace(**{key: own})
        wanted = lab.score(settings, averaging).per_image
        assert table.scores(chosen, averaging) == pytest.approx(wanted, abs=1e-12)
        fillers += sum(not len(objects) for objects in lab.detections(settings))
    assert fillers > 0 or key.startswith("mask")


@pytest.mark.parametrize("averaging", AVERAGINGS)
def test_tuning_finds_each_class_its_own(lab, averaging):
    table = count_classes(lab, SETTINGS, "score_threshold_per_class", np.arange(0.1, 0.95, 0.05))
    images = np.ones(24, dtype=bool)
    own = table.tune(images, averaging)
    for category in CATEGORIES:
        assert own.get(category, 0.5) == pytest.approx(REAL_ABOVE[category], abs=0.13)
    assert {15, 31} <= set(own)
    tuned = lab.score(SETTINGS.replace(score_threshold_per_class=own), averaging)
    assert tuned.competition_map > lab.score(SETTINGS, averaging).competition_map + 0.05


def test_images_that_are_kept_out_have_no_say(lab):
    table = count_classes(lab, SETTINGS, "score_threshold_per_class", VALUES)
    images = np.arange(24) < 12
    other = replace(table, true_positives=np.where(images[:, None, None], table.true_positives, 0))
    assert table.tune(images, "per_class") == other.tune(images, "per_class")


def test_a_gain_within_its_standard_error_moves_nothing(lab):
    table = count_classes(lab, SETTINGS, "score_threshold_per_class", VALUES)
    one = np.zeros(24, dtype=bool)
    one[[0, 1]] = True
    gains = [
        table.scores(np.full(len(table.categories), value), "per_class")[one] for value in range(6)
    ]
    assert max(np.ptp(gains, axis=0)) > 0  # there is something to be gained
    alike = replace(
        table, true_positives=table.true_positives[[0] * 6], predicted=table.predicted[[0] * 6]
    )
    assert alike.tune(one, "per_class") == {}
