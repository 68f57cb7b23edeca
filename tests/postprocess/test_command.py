"""``python -m src.postprocess``: files written, score shown, mistakes named."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from src.cli.entry_point import CONFIG_DIRECTORY, to_plain
from src.postprocess.pipeline import postprocess
from src.postprocess.settings import PostprocessSettings
from src.predictions.store import PredictionStoreWriter
from src.rle import format_rle
from src.score import main as score_main
from tests.helpers.candidates import DEFAULT, WINNER, make_candidates, make_settings
from tests.helpers.stores import NUM_IMAGES, SIZE_HW

ROOT = Path(__file__).parents[2]


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_submission_of_a_store(run: Any, store: Path, tmp_path: Path) -> None:
    shown = run(f"predictions={store}", "output=new/sub.csv", "postprocess=winner")
    rows = read_rows(tmp_path / "new" / "sub.csv")
    assert list(dict.fromkeys(row["ImageId"] for row in rows)) == [
        f"{number}.jpg" for number in range(NUM_IMAGES)
    ]
    assert rows[-1] == {"ImageId": "5.jpg", "EncodedPixels": "1 1", "ClassId": "23"}
    assert all(int(row["ClassId"]) > 12 for row in rows)
    assert f"new/sub.csv: {len(rows) - 1} detections in 5 of 6 images" in shown
    assert shown.splitlines()[0].endswith(", a valid submission")
    assert "note:" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("averaging", ["per_class", "pooled"])
def test_score_is_that_of_src_score(
    run: Any, store: Path, ground_truth: Path, tmp_path: Path, averaging: str
) -> None:
    shown = run(
        f"predictions={store}",
        f"annotations={ground_truth}",
        f"averaging={averaging}",
        "postprocess=winner",
        "postprocess.remove_categories=[]",
    )
    summary = json.loads(shown.splitlines()[-1])
    written = json.loads((tmp_path / "score.json").read_text())
    per_image = written.pop("per_image")
    assert summary == written
    assert np.mean(list(per_image.values())) == pytest.approx(summary["competition_map"])
    assert "note: 2 written images have no ground truth: not scored" in shown
    assert "note: 1 images of the ground truth are not written, so not scored" in shown
    known = tmp_path / "known.csv"
    lines = ground_truth.read_text().splitlines()
    known.write_text("\n".join(lines[:-1]) + "\n")  # without the image that the store lacks
    wanted = run(
        "submission=submission.csv",
        f"annotations={known}",
        f"averaging={averaging}",
        program=score_main,
    )
    assert summary == json.loads(wanted.splitlines()[-1])
    assert summary["images"] == 4
    assert 0.2 < summary["competition_map"] < 0.9


def test_default_settings_warn_of_what_the_competition_refuses(
    run: Any, store: Path, tmp_path: Path
) -> None:
    shown = run(f"predictions={store}", "postprocess.score_threshold=0.0005")
    assert "note: in 5 images masks of one class overlap, and the competition refuses" in shown
    assert "note: in 6 images the store lacks candidates above score_threshold=" in shown


def test_submission_of_2020(run: Any, store: Path, ground_truth: Path, tmp_path: Path) -> None:
    """Masks of another raster, ids without .jpg; the score is that of the 512 x 512 raster."""
    sample = tmp_path / "sample.csv"
    sample.write_text("ImageId,EncodedPixels,ClassId,AttributesIds\n5,1 1,23,\n0,1 1,23,\n")
    arguments = (f"predictions={store}", f"annotations={ground_truth}", "postprocess=winner")
    shown = run(*arguments, f"sample_submission={sample}", "competition=imaterialist_2020")
    assert "of 2 images, a valid submission" in shown
    rows = read_rows(tmp_path / "submission.csv")
    assert list(rows[0]) == ["ImageId", "EncodedPixels", "ClassId", "AttributesIds"]
    assert rows[0] == {"ImageId": "5", "EncodedPixels": "1 1", "ClassId": "23", "AttributesIds": ""}
    assert {row["ImageId"] for row in rows[1:]} == {"0"}
    wanted = postprocess(
        make_candidates(
            0,
            image_id="0.jpg",
            size_hw=SIZE_HW,
            count=40,
            categories=20,
            mask_dtype="float16",
        ),
        make_settings(**WINNER),
        raster="long_edge_1024",
    )
    assert wanted.bitmasks.raster_hw == (1024, 768)
    texts = format_rle(wanted.bitmasks.to_rle())
    assert [row["EncodedPixels"] for row in rows[1:]] == texts
    score = json.loads(shown.splitlines()[-1])
    sample.write_text("ImageId,EncodedPixels,ClassId\n5.jpg,1 1,23\n0.jpg,1 1,23\n")
    assert score == json.loads(run(*arguments, f"sample_submission={sample}").splitlines()[-1])


def test_sample_submission_chooses_images_and_order(
    run: Any, refused: Any, store: Path, tmp_path: Path
) -> None:
    sample = tmp_path / "sample.csv"
    sample.write_text("ImageId,EncodedPixels,ClassId\n4.jpg,1 1,23\n1.jpg,1 1,23\n")
    run(f"predictions={store}", f"sample_submission={sample}", "postprocess=winner")
    rows = read_rows(tmp_path / "submission.csv")
    assert list(dict.fromkeys(row["ImageId"] for row in rows)) == ["4.jpg", "1.jpg"]
    sample.write_text("ImageId,EncodedPixels,ClassId\n4.jpg,1 1,23\nx.jpg,1 1,23\n")
    error = refused(f"predictions={store}", f"sample_submission={sample}")
    assert "1 of the 2 images of" in error
    assert "the first is 'x.jpg'" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predictions=nowhere"], "nowhere/meta.json: missing; a prediction store is a folder"),
        (
            ["postprocess.score_threshold=2"],
            "postprocess.score_threshold must be a number from 0 to 1, got 2",
        ),
        (["+postprocess.per_class=1"], "postprocess must have keys among score_thr"),
        (
            ["~postprocess.min_area_px"],
            "postprocess.min_area_px must be given, got nothing; postprocess=default",
        ),
        (["postprocess.steps=[score,nms]"], "postprocess.steps must have masks"),
        (["format=coco"], "format was renamed: use competition (command line)"),
        (["averaging=mean"], "averaging must be one of per_class, pooled, got"),
        (["annotations=none.csv"], "none.csv"),
        (["sample_submission=none.csv"], "none.csv: no such file"),
    ],
)
def test_mistakes_end_in_one_line(
    refused: Any, store: Path, arguments: list[str], message: str
) -> None:
    error = refused(f"predictions={store}", *arguments)
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error


def test_truth_of_other_images_and_an_empty_store(
    refused: Any, store: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text("ImageId,EncodedPixels,Height,Width,ClassId\nx.jpg,1 5,10,10,3\n")
    error = refused(f"predictions={store}", f"annotations={other}")
    assert "has none of the 6 images that are written; its first is 'x.jpg'" in error
    PredictionStoreWriter(tmp_path / "empty", category_ids=[1], settings={}).close()
    assert "empty: holds no predictions" in refused(f"predictions={tmp_path}/empty")


@pytest.mark.parametrize(("group", "values"), [("default", DEFAULT), ("winner", WINNER)])
def test_groups_hold_the_values_of_the_recipe(group: str, values: dict[str, Any]) -> None:
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        config = compose("postprocess", overrides=[f"postprocess={group}"])
    assert to_plain(config.postprocess) == values
    PostprocessSettings.from_config(to_plain(config.postprocess))


def test_help_and_module_entry() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "src.postprocess", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "python -m src.postprocess predictions=" in done.stdout
    for key in WINNER:
        assert key in done.stdout
