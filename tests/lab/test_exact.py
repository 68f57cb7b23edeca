"""What the page shows is what the commands give, to the last digit and pixel."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.lab.evaluation import Evaluation
from src.lab.image_view import ImageViews
from src.lab.requests import Channels, DroppedError
from src.lab.workspace import Workspace
from src.metrics.competition import ScoreAccumulator
from src.metrics.intervals import paired_bootstrap_interval
from src.metrics.scoring import compare, open_ground_truth, open_submission, score_comparison
from src.postprocess.pipeline import StepCounts, postprocess
from src.postprocess.settings import PostprocessSettings
from src.postprocess.steps.nms import NMS_KINDS
from src.rle import format_rle
from src.submission.writing import write_submission
from src.tuning.evaluated_image import as_submitted
from src.tuning.session import open_session
from tests.helpers.candidates import DEFAULT_STEPS, make_settings
from tests.helpers.lab_data import write_lab_data
from tests.helpers.lab_server import make_inputs, make_workspace

NUM_IMAGES = 5
OTHER_ORDERS = (
    ["nms", "masks", "min_area", "suppress_overlaps", "score", "remove", "max_per_class"],
    ["score", "nms", "masks", "suppress_overlaps", "min_area", "cap", "remove", "max_per_class"],
)


def draw_settings(draw: random.Random) -> PostprocessSettings:
    """Return settings of any kind; most mask thresholds are those of the page's slider."""
    threshold = draw.choice([draw.randint(5, 95) / 100, draw.uniform(0.05, 0.95)])
    return make_settings(
        score_threshold=draw.choice([0.0, 0.2, 0.5, draw.random()]),
        score_threshold_per_class=draw.choice([None, {23: 0.3, 31: draw.random()}]),
        nms_kind=draw.choice(NMS_KINDS),
        nms_iou_threshold=draw.choice([0.2, 0.5, draw.random()]),
        soft_nms_sigma=draw.uniform(0.1, 1),
        soft_nms_min_score=draw.choice([0.001, 0.3]),
        max_per_image=draw.choice([None, 100, 7]),
        remove_categories=draw.choice([[], [], [23], [15, 31]]),
        max_per_class=draw.choice([None, None, 1, 2]),
        mask_threshold=threshold,
        mask_threshold_per_class=draw.choice([None, None, {15: 0.35, 23: draw.uniform(0.2, 0.8)}]),
        suppress_overlaps=draw.choice([False, True, True, "all"]),
        min_area_px=draw.choice([0, 20, 2500]),
        min_area_raster=draw.choice(["512x512", "512x512", "long_edge_1024"]),
        steps=draw.choice([list(DEFAULT_STEPS)] * 4 + list(OTHER_ORDERS)),
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("lab")
    inputs = make_inputs(*write_lab_data(folder, NUM_IMAGES))
    with open_session(inputs, remember=True) as session:
        yield make_workspace(session, inputs, folder)


def nothing() -> None:
    pass


@pytest.mark.parametrize("num_settings", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_settings_are_scored_as_their_submission(
    workspace: Workspace, tmp_path: Path, num_settings: int
) -> None:
    draw = random.Random(7)
    evaluation, views = Evaluation(workspace), ImageViews(workspace)
    session, store = workspace.session, workspace.session.store
    rules = session.evaluator.competition
    baseline = workspace.start
    with open_ground_truth(str(workspace.inputs.annotations)) as ground_truth:
        for number in range(num_settings):
            settings = draw_settings(draw)
            if number % 2:  # as after a while without a request
                other = settings.replace(mask_threshold=0.4, mask_threshold_per_class=None)
                evaluation.warm(other, nothing)
            answer = evaluation.score(settings, baseline, known_baseline=None, check=nothing)
            found = [
                postprocess(store.candidates(index), settings, category_ids=store.category_ids)
                for index in range(NUM_IMAGES)
            ]
            steps = StepCounts()
            plain = ScoreAccumulator("per_class", rules.rule, rules.scored_on)
            for one in found:
                steps.add(len(one), one.taken)
                plain.add(
                    session.ground_truth[one.image_id], as_submitted(one, filler=rules.filler)
                )
            expected = plain.result()
            assert answer["competition_map"] == expected.competition_map, settings
            assert answer["per_image"] == expected.per_image.tolist()
            assert answer["per_threshold"] == expected.per_threshold.tolist()
            assert answer["num_detections"] == steps.num_detections
            assert answer["num_candidates"] == steps.num_candidates
            assert answer["taken"] == steps.taken
            assert answer["is_exact"] == all(one.is_exact for one in found)
            index = number % NUM_IMAGES
            shown, own = views.view(settings, index, ghosts=True), found[index]
            assert [one["mask"] for one in shown["detections"]] == list(
                format_rle(own.bitmasks.to_rle())
            )
            assert [one["category_id"] for one in shown["detections"]] == own.category_ids.tolist()
            assert [one["score"] for one in shown["detections"]] == own.scores.tolist()
            assert shown["score"] == expected.per_image[index]
            gone = {one["id"] for one in shown["ghosts"]}
            assert not gone & {one["id"] for one in shown["detections"]}
            assert len(gone) + len(own) == store.count(index)
            if number % 10:
                continue
            path = tmp_path / f"{number}.csv"
            write_submission(path, found, competition=session.competition)
            with open_submission(path, ground_truth) as submission:
                pair = compare(ground_truth, submission, prediction_name="submission")
                scored = score_comparison(pair)
            assert answer["competition_map"] == scored.competition_map
            with path.open() as file:
                rows = [row for row in csv.DictReader(file) if row["ImageId"] == own.image_id]
            if len(own):
                assert [row["EncodedPixels"] for row in rows] == [
                    one["mask"] for one in shown["detections"]
                ]


def test_the_interval_is_that_of_compare(workspace: Workspace) -> None:
    evaluation = Evaluation(workspace)
    other = workspace.start.replace(score_threshold=0.2)
    answer = evaluation.interval(other, workspace.start, nothing)
    score: dict[str, Any] = {}
    for side, settings in (("a", workspace.start), ("b", other)):
        found = evaluation.result(settings, nothing).score
        assert found is not None
        score[side] = dict(zip(found.image_ids, found.per_image.tolist(), strict=True))
    order = list(workspace.truth or ())
    paired = paired_bootstrap_interval(
        [score["a"][name] for name in order],
        [score["b"][name] for name in order],
        num_resamples=500,
    )
    assert answer["difference"]["estimate"] == paired.difference.estimate
    assert answer["difference"]["low"] == paired.difference.low
    assert answer["probability_better"] == paired.probability_better
    assert answer["verdict"] == paired.verdict


def test_the_reasons_of_ghosts_hold(workspace: Workspace) -> None:
    """Each suppressor is a detection, and each number in a reason is that of the candidate."""
    views = ImageViews(workspace)
    settings = workspace.start.replace(score_threshold=0.3, max_per_class=1, min_area_px=2000)
    steps = set()
    for index in range(NUM_IMAGES):
        shown = views.view(settings, index, ghosts=True)
        for ghost in shown["ghosts"]:
            steps.add(ghost["step"])
            if ghost["step"] == "score":
                assert ghost["score"] <= 0.3
                assert ghost["reason"] == f"score {ghost['score']:.4g} is not above 0.3"
            if ghost["step"] == "nms":
                assert ghost["by"] is not None
                assert "above 0.3" in ghost["reason"]
    assert {"score", "nms", "max_per_class"} <= steps


def test_a_newer_request_stops_an_older_one_between_two_images(workspace: Workspace) -> None:
    class NewerError(Exception):
        pass

    seen = []

    def check() -> None:
        seen.append(1)
        if len(seen) == 3:
            raise NewerError

    with pytest.raises(NewerError):
        Evaluation(workspace).result(workspace.start.replace(score_threshold=0.123), check)
    assert len(seen) == 3


def test_coco_ap_gives_way_to_a_newer_score(workspace: Workspace) -> None:
    channels, evaluation = Channels(), Evaluation(workspace)
    asked = channels.enter({"client": "a", "sequence": 1}, "coco")
    seen = []

    def check() -> None:
        seen.append(1)
        if len(seen) == 3:
            channels.enter({"client": "a", "sequence": 2}, "score")
        asked.check()

    with pytest.raises(DroppedError):
        evaluation.coco(workspace.start, check)
    assert len(seen) == 3
    assert evaluation.result(workspace.start, nothing).score is not None  # nothing is held


def test_errors_point_at_images_that_have_them(workspace: Workspace) -> None:
    answer = Evaluation(workspace).errors(workspace.start, nothing)
    counts = {row["kind"]: row["count"] for row in answer["rows"]}
    for kind, indices in answer["image_errors"].items():
        assert (counts[kind] > 0) == (len(indices) > 0)
        assert all(0 <= index < NUM_IMAGES for index in indices)
    views = ImageViews(workspace)
    for index in range(NUM_IMAGES):
        shown = views.view(workspace.start, index, ghosts=False)
        missed = [one for one in shown["ground_truth"] if one["error"] == "missed"]
        assert bool(missed) == (index in answer["image_errors"]["missed"])
        for one in shown["ground_truth"]:
            if one["detection"] is not None:
                ids = [detection["id"] for detection in shown["detections"]]
                partner = shown["detections"][ids.index(one["detection"])]
                assert partner["truth"] == one["id"]
                assert partner["iou"] == pytest.approx(one["iou"])


def test_the_score_of_a_row_of_the_sweep_is_that_of_each_cell(workspace: Workspace) -> None:
    evaluation = Evaluation(workspace)
    axes = {"x": ("score_threshold", [0.3, 0.6, 2]), "y": ("nms_iou_threshold", [0.4])}
    row = evaluation.grid(workspace.start, axes, workspace.settings, nothing)
    for value, found in zip((0.3, 0.6), row["scores"], strict=False):
        cell = workspace.start.replace(score_threshold=value, nms_iou_threshold=0.4)
        own = evaluation.result(cell, nothing).score
        assert own is not None
        assert found == own.competition_map
    assert row["scores"][2] is None
    assert "score_threshold must be a number from 0 to 1, got 2" in row["errors"][2]
    assert np.isfinite(row["scores"][:2]).all()
