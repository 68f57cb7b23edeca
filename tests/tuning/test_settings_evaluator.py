"""The lab's scores are those of the plain way, whatever it remembers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import InputError
from src.metrics.competition import CompetitionScore, ImageInstances, ScoreAccumulator
from src.postprocess.pipeline import postprocess
from src.postprocess.settings import PostprocessSettings
from src.postprocess.steps.nms import NMS_KINDS
from src.predictions.store import PredictionStore, PredictionStoreWriter
from src.tuning.evaluated_image import EvaluatedImage, RasterCache, as_submitted
from src.tuning.settings_evaluator import SettingsEvaluator
from tests.helpers.candidates import DEFAULT_STEPS, make_candidates, make_settings
from tests.helpers.competitions import IMATERIALIST_2019, OTHER_DATA

LABELS = (5, 0, 31, 23)  # category ids in the order of the model's labels
IMAGES = 4
ORDERS = [
    list(DEFAULT_STEPS),
    ["nms", "masks", "min_area", "suppress_overlaps", "score", "remove", "max_per_class"],
    ["score", "nms", "masks", "suppress_overlaps", "min_area", "cap", "remove", "max_per_class"],
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PredictionStore:
    """Four images; the last has no candidates."""
    directory = tmp_path_factory.mktemp("lab") / "store"
    with PredictionStoreWriter(directory, category_ids=LABELS, settings={}) as writer:
        for number in range(IMAGES):
            count = 30 if number < IMAGES - 1 else 0
            made = make_candidates(
                number, image_id=f"{number}.jpg", count=count, categories=4, clusters=3
            )
            made.category_ids[:] = np.array(LABELS)[made.category_ids]
            writer.add(made)
    return PredictionStore(directory)


@pytest.fixture(scope="module")
def ground_truth(store: PredictionStore) -> dict[str, ImageInstances]:
    """What looser settings find; nothing is known of the third image, nothing is on the fourth."""
    loose = make_settings(score_threshold=0.4, mask_threshold=0.55, suppress_overlaps=True)
    found = {
        store.image_ids[index]: as_submitted(
            postprocess(store.candidates(index), loose, category_ids=LABELS),
            filler=IMATERIALIST_2019.filler,
        )
        for index in (0, 1, 3)
    }
    last = found["3.jpg"]
    return found | {"3.jpg": ImageInstances("3.jpg", (), last.bitmasks[:0])}


def plainly(
    store: PredictionStore,
    ground_truth: dict[str, ImageInstances],
    rules: PostprocessSettings,
    averaging: Any = "per_class",
    competition: Any = OTHER_DATA,
) -> CompetitionScore:
    accumulator = ScoreAccumulator(averaging=averaging)
    for index, image_id in enumerate(store.image_ids):
        if image_id in ground_truth:
            objects = postprocess(store.candidates(index), rules, category_ids=LABELS)
            accumulator.add(
                ground_truth[image_id], as_submitted(objects, filler=competition.filler)
            )
    return accumulator.result()


def check_same(found: CompetitionScore, wanted: CompetitionScore) -> None:
    assert found.image_ids == wanted.image_ids
    assert np.array_equal(found.values, wanted.values)
    assert found.classes == wanted.classes


RULES = st.fixed_dictionaries(
    {
        "score_threshold": st.sampled_from([0.0, 0.3, 0.6, 1.0]),
        "score_threshold_per_class": st.sampled_from([{}, {5: 0.7, 23: 0.1}]),
        "nms_kind": st.sampled_from(NMS_KINDS),
        "nms_iou_threshold": st.sampled_from([0.1, 0.3, 0.6]),
        "soft_nms_min_score": st.sampled_from([0.001, 0.3]),
        "max_per_image": st.sampled_from([None, 2, 10]),
        "remove_categories": st.sampled_from([[], [5, 31]]),
        "max_per_class": st.sampled_from([None, 1]),
        "mask_threshold": st.sampled_from([0.4, 0.5]),
        "mask_threshold_per_class": st.sampled_from([{}, {0: 0.7}]),
        "suppress_overlaps": st.booleans(),
        "min_area_px": st.sampled_from([0, 3000]),
        "min_area_raster": st.sampled_from(["512x512", "long_edge_1024"]),
    }
)


@settings(max_examples=25, deadline=None)
@given(grid=st.lists(RULES, min_size=1, max_size=4), orders=st.lists(st.sampled_from(ORDERS)))
def test_a_grid_scores_as_each_of_its_settings_alone(
    store: PredictionStore,
    ground_truth: dict[str, ImageInstances],
    grid: list[dict[str, Any]],
    orders: list[list[str]],
) -> None:
    steps = (orders or ORDERS[:1]) * len(grid)
    rules = [
        make_settings(**changes, steps=order) for changes, order in zip(grid, steps, strict=False)
    ]
    competition = IMATERIALIST_2019 if len(rules) % 2 == 0 else OTHER_DATA
    lab = SettingsEvaluator(store, ground_truth, store.image_ids, competition=competition)
    for averaging in ("per_class", "pooled"):
        scores = lab.score_grid(rules, averaging)
        for found, own in zip(scores, rules, strict=True):
            check_same(found, plainly(store, ground_truth, own, averaging, competition))
            check_same(lab.score(own, averaging), found)


@pytest.mark.parametrize("max_bytes", [0, 40_000])
def test_little_room_changes_nothing(
    store: PredictionStore, ground_truth: dict[str, ImageInstances], max_bytes: int
) -> None:
    lab = SettingsEvaluator(
        store,
        ground_truth,
        store.image_ids,
        competition=OTHER_DATA,
        max_raster_bytes=max_bytes,
        max_candidate_bytes=max_bytes,
    )
    rules = make_settings(score_threshold=0.2, suppress_overlaps=True)
    wanted = plainly(store, ground_truth, rules)
    for _ in range(2):
        check_same(lab.score(rules), wanted)
        found = list(lab.detections(rules))
        for index, objects in enumerate(found):
            own = postprocess(store.candidates(index), rules, category_ids=LABELS)
            assert objects.bitmasks == own.bitmasks
            assert np.array_equal(objects.scores, own.scores)
    assert [objects.image_id for objects in found] == list(store.image_ids)


def test_forgetting_changes_nothing(
    store: PredictionStore, ground_truth: dict[str, ImageInstances], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.tuning.evaluated_image._REMEMBERED", 2)
    lab = SettingsEvaluator(store, ground_truth, store.image_ids, competition=OTHER_DATA)
    grid = [make_settings(score_threshold=score) for score in (0.1, 0.3, 0.5, 0.1)]
    for found, rules in zip(lab.score_grid(grid), grid, strict=True):
        check_same(found, plainly(store, ground_truth, rules))


def test_what_cannot_be_scored_is_refused(
    store: PredictionStore, ground_truth: dict[str, ImageInstances]
) -> None:
    with pytest.raises(InputError, match="there is no image to score"):
        SettingsEvaluator(store, {}, store.image_ids, competition=OTHER_DATA).score(make_settings())
    with pytest.raises(InputError, match="averaging must be one of per_class, pooled, got"):
        SettingsEvaluator(store, ground_truth, store.image_ids, competition=OTHER_DATA).score(
            make_settings(), "mean"
        )
    unknown = EvaluatedImage(
        store.candidates(2),
        ground_truth=None,
        category_ids=LABELS,
        competition=OTHER_DATA,
        rasters=RasterCache(max_bytes=0),
    )
    with pytest.raises(ValueError, match=r"2\.jpg: its ground truth is not known"):
        unknown.counts(make_settings(), with_filler=False)


def test_rasters_make_room_for_newer_ones() -> None:
    made: list[list[int]] = []

    def make(pairs: np.ndarray, thresholds: np.ndarray, raster: str) -> np.ndarray:
        made.append(pairs.tolist())
        masks = np.zeros((len(pairs), 64), dtype=np.uint8)
        for row, (pair, threshold) in enumerate(zip(pairs, thresholds, strict=True)):
            masks[row, 8 * pair : 8 * pair + 16] = 100 * threshold
        return masks

    cache = RasterCache(max_bytes=3 * 16)
    sample = cache.sampler("a", make)

    def ask(pairs: list[int], threshold: float = 0.5) -> np.ndarray:
        return sample(np.array(pairs), np.full(len(pairs), threshold, dtype=np.float32), "512x512")

    first = ask([0, 1])
    assert np.array_equal(ask([1, 2, 0]), first[[1]].tolist() + ask([2, 0]).tolist())
    assert made == [[0, 1], [2]]
    assert cache.used_bytes == 48
    ask([3])  # in the place of the mask asked for longest ago
    ask([1], threshold=0.25)
    assert cache.used_bytes == 48
    ask([0])
    assert made[2:] == [[3], [1]]
    ask([2])
    assert made[-1] == [2]
    assert len(ask([])) == 0
