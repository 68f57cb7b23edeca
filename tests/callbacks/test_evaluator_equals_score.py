"""The score of a validation is that of ``src.score`` on the submission, to the last digit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.annotations.store import AnnotationStore
from src.annotations.store_builder import open_or_build
from src.callbacks.validation_metrics import (
    CompetitionScoreMetric,
    MetricResult,
    ValidationImage,
)
from src.metrics.competition import CompetitionScore, split_key
from src.metrics.inputs import RasterInstances
from src.metrics.scoring import compare, open_ground_truth, open_submission, score_comparison
from src.postprocess.settings import PostprocessSettings
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStore, PredictionStoreWriter
from src.tuning.session import Inputs, open_session, submit
from tests.helpers.candidates import make_masks, make_settings

SIZE_HW = (48, 64)
COMPETITION = {6: "pants", 23: "shoe", 31: "sleeve"}
OTHER_DATA = (
    {6: "pants", 31: "sleeve"},  # of the competition's, without the filler's
    {6: "cell", 23: "nucleus", 31: "truck"},
    {6: "pants", 23: "shoe", 77: "sofa"},
)


@dataclass(frozen=True)
class Case:
    """Ground truth and candidates, made by formula of a seed."""

    seed: int
    names: dict[int, str]
    instances: Sequence[int]  # of each image
    candidates: Sequence[int]  # of each image
    crowd: float  # share of crowd regions

    def write(self, folder: Path) -> None:
        random = np.random.default_rng(self.seed)
        categories = sorted(self.names)
        images, annotations = [], []
        with PredictionStoreWriter(
            folder / "predictions", category_ids=categories, settings={}
        ) as writer:
            for number, wanted in enumerate(self.instances, start=1):
                name = f"{number * 7 % 13}.jpg"  # neither in the order of names nor of numbers
                images.append(
                    {"id": number, "file_name": name, "height": SIZE_HW[0], "width": SIZE_HW[1]}
                )
                boxes = _boxes(random, wanted)
                labels = random.choice(categories, wanted)
                for box, category in zip(boxes.tolist(), labels.tolist(), strict=True):
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": number,
                            "category_id": category,
                            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                            "area": 1,
                            "iscrowd": int(random.random() < self.crowd),
                            "segmentation": {"size": list(SIZE_HW), "counts": _counts(box)},
                        }
                    )
                writer.add(self._candidates(random, name, self.candidates[number - 1], boxes))
        source = {
            "images": images,
            "categories": [{"id": key, "name": name} for key, name in self.names.items()],
            "annotations": annotations,
        }
        (folder / "truth.json").write_text(json.dumps(source))

    def _candidates(
        self, random: np.random.Generator, name: str, count: int, ground_truth: np.ndarray
    ) -> Candidates:
        """Some where instances are, some anywhere; a score of 0.2 to 1."""
        boxes = _boxes(random, count).astype(np.float32)
        masks = make_masks(random, count)
        for place in range(min(count, len(ground_truth))):
            if random.random() < 0.7:
                boxes[place] = ground_truth[place]
                masks[place] = 0.9
        return Candidates(
            image_id=name,
            size_hw=SIZE_HW,
            boxes_xyxy=boxes,
            scores=random.uniform(0.2, 1, count).astype(np.float32),
            category_ids=random.choice(sorted(self.names), count).astype(np.int16),
            mask_probabilities=masks,
            complete_above_score=0.001,
        )


def _boxes(random: np.random.Generator, count: int) -> np.ndarray:
    corners = random.integers(0, (SIZE_HW[1] - 8, SIZE_HW[0] - 8), (count, 2))
    return np.concatenate([corners, corners + random.integers(2, 9, (count, 2))], axis=1)


def _counts(box: list[int]) -> list[int]:
    mask = np.zeros(SIZE_HW, dtype=np.int8)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    pixels = np.concatenate([[0], mask.T.ravel()])
    edges = np.flatnonzero(np.diff(pixels))
    return np.diff([0, *edges.tolist(), mask.size]).tolist()


def in_training(
    store: AnnotationStore,
    predictions: PredictionStore,
    rules: PostprocessSettings,
    averaging: Any,
) -> MetricResult:
    """Two processes, one of whose images are with the other, too."""
    ranks = [CompetitionScoreMetric(averaging=averaging) for _ in range(2)]
    for index in range(len(predictions)):
        image = ValidationImage(
            predictions.candidates(index),
            instances=RasterInstances(store),
            settings=rules,
            category_ids=predictions.category_ids,
        )
        ranks[index % 2].update(image)
        if index == 0:
            ranks[1].update(image)
    first, second = ranks
    first.merge(second.kept)
    return first.compute(store)


def submitted(folder: Path, rules: PostprocessSettings) -> Path:
    """Write the submission as ``src.postprocess`` does."""
    inputs = Inputs(
        predictions=str(folder / "predictions"),
        annotations=str(folder / "truth.json"),
        sample_submission=None,
        images=None,
        cache_dir=str(folder / "cache"),
    )
    output = folder / "submission.csv"
    with open_session(inputs) as session:
        submit(
            output,
            session,
            rules,
            averaging="per_class",
            track=lambda x: x,
        )
    return output


def scored(folder: Path, averaging: Any) -> CompetitionScore:
    """Score the submission as ``src.score`` does."""
    with (
        open_ground_truth(folder / "truth.json", cache_dir=folder / "cache") as ground_truth,
        open_submission(folder / "submission.csv", ground_truth) as prediction,
    ):
        comparison = compare(ground_truth, prediction, prediction_name="submission.csv")
        return score_comparison(comparison, averaging=averaging)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    images = draw(st.integers(1, 12))
    few = st.lists(st.sampled_from((0, 0, 1, 3)), min_size=images, max_size=images)
    return Case(
        seed=draw(st.integers(0, 10**6)),
        names=draw(st.sampled_from((COMPETITION, COMPETITION, *OTHER_DATA))),
        instances=draw(few),
        candidates=draw(few),
        crowd=draw(st.sampled_from((0.0, 0.5))),
    )


@settings(max_examples=40, deadline=None)
@given(
    case=cases(),
    averaging=st.sampled_from(("per_class", "pooled")),
    threshold=st.sampled_from((0.001, 0.5)),
)
def test_the_score_of_training_is_that_of_the_submission(
    tmp_path_factory: pytest.TempPathFactory, case: Case, averaging: Any, threshold: float
) -> None:
    folder = tmp_path_factory.mktemp("case")
    case.write(folder)
    rules = make_settings(score_threshold=threshold, suppress_overlaps=True)
    submitted(folder, rules)
    store = open_or_build(folder / "truth.json", folder / "cache")
    found = in_training(store, PredictionStore(folder / "predictions"), rules, averaging)
    expected = scored(folder, averaging)
    assert found.values == {"validation/competition_map": expected.competition_map}
    assert found.by_class == {
        split_key(key)[0]: {
            "true_objects": result.num_ground_truth,
            "predicted_objects": result.num_detections,
            "competition_score": result.value,
        }
        for key, result in expected.classes.items()
    }


@pytest.mark.parametrize(("names", "expected"), [(COMPETITION, 1 / 3), (OTHER_DATA[1], 2 / 3)])
def test_an_image_with_neither_side_has_the_filler_in_the_competition_only(
    tmp_path: Path, names: dict[int, str], expected: float
) -> None:
    """Images: a perfect detection, instances alone, neither."""
    case = Case(seed=4, names=names, instances=(1, 1, 0), candidates=(0, 0, 0), crowd=0.0)
    case.write(tmp_path)
    ground_truth = json.loads((tmp_path / "truth.json").read_text())
    instance = ground_truth["annotations"][0]
    x, y, width, height = instance["bbox"]
    with PredictionStoreWriter(
        tmp_path / "perfect", category_ids=sorted(names), settings={}
    ) as writer:
        writer.add(
            Candidates(
                image_id="7.jpg",
                size_hw=SIZE_HW,
                boxes_xyxy=np.array([[x, y, x + width, y + height]], dtype=np.float32),
                scores=np.array([0.9], dtype=np.float32),
                category_ids=np.array([instance["category_id"]], dtype=np.int16),
                mask_probabilities=np.ones((1, 28, 28), dtype=np.float32),
                complete_above_score=0.001,
            )
        )
        for name in ("1.jpg", "8.jpg"):
            writer.add(case._candidates(np.random.default_rng(0), name, 0, np.zeros((0, 4))))
    (tmp_path / "predictions").rename(tmp_path / "empty")
    (tmp_path / "perfect").rename(tmp_path / "predictions")
    rules = make_settings()
    store = open_or_build(tmp_path / "truth.json", tmp_path / "cache")
    found = in_training(store, PredictionStore(tmp_path / "predictions"), rules, "per_class")
    assert found.values["validation/competition_map"] == pytest.approx(expected)
    submitted(tmp_path, rules)
    command = [
        *(sys.executable, "-m", "src.score"),
        f"submission={tmp_path / 'submission.csv'}",
        f"annotations={tmp_path / 'truth.json'}",
        f"cache_dir={tmp_path / 'cache'}",
        f"hydra.run.dir={tmp_path}",
    ]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    said = json.loads(printed.splitlines()[-1])
    assert said["competition_map"] == found.values["validation/competition_map"]
