"""The program src.compare: differences with their intervals, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.compare import check_same_images, main
from src.errors import InputError
from src.metrics.intervals import paired_bootstrap_interval
from src.metrics.scoring import open_ground_truth, read_scores
from src.predictions.store import PredictionStore
from src.score import main as score
from src.tuning.settings_evaluator import SettingsEvaluator
from tests.helpers.candidates import WINNER, make_settings
from tests.helpers.competitions import OTHER_DATA
from tests.helpers.lab_data import write_lab_data

HEADER = "ImageId,EncodedPixels,Height,Width,ClassId\n"
# Images of 8 x 8, on each two shoes; of the second one b finds a part on some images.
TRUTH = HEADER + "".join(f"{n}.jpg,1 16,8,8,23\n{n}.jpg,33 16,8,8,24\n" for n in range(8))
RIGHT = "".join(f"{n}.jpg,1 16,8,8,23\n" for n in range(8))


@pytest.fixture
def run(run: Any, tmp_path: Path) -> Any:
    (tmp_path / "train.csv").write_text(TRUTH)
    (tmp_path / "a.csv").write_text(HEADER + RIGHT)
    more = "".join(f"{n}.jpg,33 {16 if n % 2 else 12},8,8,24\n" for n in range(6))
    (tmp_path / "b.csv").write_text(HEADER + RIGHT + more)

    given = ("cache_dir=null", "num_resamples=2000")
    return lambda *arguments, program=main: run(program, *given, *arguments)


FILES = ("a=a.csv", "b=b.csv", "annotations=train.csv")
# 12 of 16 pixels: IoU 0.75, hits at 5 thresholds
WANTED_A = np.full(8, 0.5)
WANTED_B = np.array([0.75, 1.0] * 3 + [0.5, 0.5])


def test_two_submissions(run):
    shown = run(*FILES)
    result = json.loads(shown.splitlines()[-1])
    paired = paired_bootstrap_interval(WANTED_A, WANTED_B, num_resamples=2000)
    for key in ("estimate", "low", "high"):
        assert result["difference"][key] == pytest.approx(getattr(paired.difference, key))
    assert result["a"]["estimate"] == 0.5
    assert result["b"]["estimate"] == pytest.approx(WANTED_B.mean())
    assert result["probability_better"] == pytest.approx(paired.probability_better)
    assert (result["verdict"], result["images"]) == ("b is better", 8)
    assert f"b - a  +{WANTED_B.mean() - 0.5:.5f}  95% interval +" in shown
    assert "b is better (per_class, 8 images)" in shown
    back = json.loads(run("a=b.csv", "b=a.csv", FILES[2]).splitlines()[-1])
    assert (back["verdict"], back["probability_better"]) == ("a is better", 0.0)
    same = json.loads(run("a=b.csv", "b=b.csv", FILES[2]).splitlines()[-1])
    assert (same["verdict"], same["probability_better"]) == ("within noise", 0.5)


def test_score_files_need_no_truth(run, tmp_path):
    whole = json.loads(run(*FILES).splitlines()[-1])
    for side in "ab":
        run(
            f"submission={side}.csv",
            "annotations=train.csv",
            f"output=new/{side}.json",
            program=score,
        )
    scores = read_scores(tmp_path / "new" / "b.json")
    assert list(scores.per_image.values()) == pytest.approx(WANTED_B)
    assert json.loads(run("a=new/a.json", "b=new/b.json").splitlines()[-1]) == whole
    assert json.loads(run("a=a.csv", "b=new/b.json", FILES[2]).splitlines()[-1]) == whole
    error = run("a=new/a.json", "b=new/b.json", "averaging=pooled")
    assert error == (
        "error: averaging must be per_class, as a=new/a.json was made with, got pooled"
    )
    (tmp_path / "old.json").write_text('{"competition_map": 0.5}')
    assert run("a=old.json", "b=new/b.json").startswith(
        "error: per_image must be scores by image id, got null (old.json); write it again with `py"
    )
    (tmp_path / "old.json").write_text('{"competition_map": 1, "per_image": {"1.jpg": 2}}')
    error = run("a=old.json", "b=new/b.json")
    assert error == "error: per_image.1.jpg must be a number from 0 to 1, got 2 (old.json)"
    written = (tmp_path / "new" / "a.json").read_text()
    (tmp_path / "old.json").write_text(written[: len(written) // 2])
    error = run("a=old.json", "b=new/b.json")
    assert error.startswith("error: old.json: damaged or no JSON (")
    assert error.endswith(
        "; write it again with `python -m src.score output=...` or `python -m src.postprocess`"
    )


def test_two_settings_on_one_store(run, tmp_path):
    store, ground_truth = write_lab_data(tmp_path / "lab", images=5)
    names = (f"a={store}", f"b={store}", f"annotations={ground_truth}")
    result = json.loads(run(*names, "a_postprocess=default").splitlines()[-1])
    changed = run(*names, "a_postprocess=default", "a_postprocess.score_threshold=0.9")
    with open_ground_truth(ground_truth) as objects:
        opened = PredictionStore(store)
        lab = SettingsEvaluator(opened, objects, opened.image_ids, competition=OTHER_DATA)
        winner = make_settings(**WINNER | {"remove_categories": []})
        wanted = [
            lab.score(rules).competition_map
            for rules in (make_settings(), winner, make_settings(score_threshold=0.9))
        ]
    assert len(set(wanted)) == 3
    found = [result["a"], result["b"], json.loads(changed.splitlines()[-1])["a"]]
    assert [own["estimate"] for own in found] == wanted
    assert result["images"] == 5


def test_other_images_are_named(run, tmp_path):
    (tmp_path / "b.csv").write_text(HEADER + RIGHT.split("6.jpg")[0])
    assert run(*FILES) == (
        "error: a and b must score the same images, 6 are in both; a alone has 2 (the first: 6.jpg)"
    )
    split = {"validation": ["1.jpg", "3.jpg"], "train": ["0.jpg"], "seed": 1, "annotations": "t"}
    (tmp_path / "split.json").write_text(json.dumps(split))
    assert json.loads(run(*FILES, "split=split.json").splitlines()[-1])["images"] == 2
    with pytest.raises(
        InputError,
        match=r"0 are in both; a alone has 1 \(the first: x\); b alone has 2 \(the first: y\)$",
    ):
        check_same_images({"x": 1.0}, {"y": 1.0, "z": 0.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["a=no.csv"], "a must be a file or folder, got no.csv: no such file or folder"),
        (["annotations=null"], "annotations must be the ground truth to score a=a.csv, got null"),
        (["averaging=x"], "averaging must be one of per_class, pooled, got 'x'"),
        (["num_resamples=0"], "num_resamples must be a whole number of at least 1, got 0"),
        (
            ["b_postprocess.score_threshold=2", "b=store"],
            "b must be a file or folder, got store: no such file or folder",
        ),
    ],
)
def test_mistakes_are_one_line(run, changes, message):
    assert run(*FILES, *changes) == f"error: {message}"


def test_images_of_another_truth(run, tmp_path):
    (tmp_path / "a.csv").write_text((HEADER + RIGHT).replace(".jpg", ".png"))
    error = "error: a=a.csv: has none of the images of train.csv to be compared"
    assert run(*FILES) == error
