"""``python -m src.postprocess``: files written, score shown, mistakes named."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from src.annotations.packed_masks import to_runs
from src.annotations.run_lengths import format_runs
from src.config import CONFIG_DIRECTORY, to_plain
from src.postprocess.__main__ import main
from src.postprocess.pipeline import postprocess
from src.postprocess.prediction_store import PredictionStoreWriter
from src.postprocess.settings import settings_from
from src.score import main as score_main
from tests.postprocess.generated import DEFAULT, WINNER, make_candidates, make_settings

ROOT = Path(__file__).parents[2]
IMAGES = 6
SIZE_HW = (400, 300)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images; the last has no candidates."""
    directory = tmp_path_factory.mktemp("predictions") / "store"
    with PredictionStoreWriter(directory, category_ids=range(46), settings={}) as writer:
        for number in range(IMAGES):
            count = 40 if number < IMAGES - 1 else 0
            writer.add(
                make_candidates(
                    number,
                    image_id=f"{number}.jpg",
                    size_hw=SIZE_HW,
                    count=count,
                    categories=20,
                    exact_above_score=0.001,
                )
            )
    return directory


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Path:
    """A train.csv of the first three images and the last; and of one that the store lacks."""
    path = tmp_path_factory.mktemp("truth") / "train.csv"
    rules = make_settings(score_threshold=0.7, suppress_overlaps=True, mask_threshold=0.55)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "EncodedPixels", "Height", "Width", "ClassId"])
        for number in range(3):
            candidates = make_candidates(
                number, image_id=f"{number}.jpg", size_hw=SIZE_HW, count=40, categories=20
            )
            found = postprocess(candidates, rules)
            for packed, category in zip(found.packed, found.category_ids, strict=True):
                text = format_runs(to_runs(packed, (512, 512)))
                rows.writerow([candidates.image_id, text, 512, 512, int(category)])
        rows.writerow([f"{IMAGES - 1}.jpg", "1 5", *SIZE_HW, 23])
        rows.writerow(["elsewhere.jpg", "1 5", *SIZE_HW, 3])
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the program in an empty folder; gives its stdout."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, program: Any = main) -> str:
        monkeypatch.setattr(sys, "argv", ["program", *arguments])
        capsys.readouterr()
        program()
        return capsys.readouterr().out

    return call


def refused(run: Any, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a run that ends with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip()


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_submission_of_a_store(run: Any, store: Path, tmp_path: Path) -> None:
    shown = run(f"predictions={store}", "output=new/sub.csv", "postprocess=winner")
    rows = read_rows(tmp_path / "new" / "sub.csv")
    assert list(dict.fromkeys(row["ImageId"] for row in rows)) == [
        f"{number}.jpg" for number in range(IMAGES)
    ]
    assert rows[-1] == {"ImageId": "5.jpg", "EncodedPixels": "1 1", "ClassId": "23"}
    assert all(int(row["ClassId"]) > 12 for row in rows)
    assert f"new/sub.csv: {len(rows) - 1} objects in 5 of 6 images" in shown
    assert "note:" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("averaging", ["per_class", "pooled"])
def test_score_is_that_of_src_score(
    run: Any, store: Path, truth: Path, tmp_path: Path, averaging: str
) -> None:
    shown = run(
        f"predictions={store}",
        f"ground_truth={truth}",
        f"averaging={averaging}",
        "postprocess=winner",
        "postprocess.remove_categories=[]",
    )
    summary = json.loads(shown.splitlines()[-1])
    assert summary == json.loads((tmp_path / "score.json").read_text())
    assert "note: 2 written images have no truth: not scored" in shown
    assert "note: 1 images of the truth are not written: not scored" in shown
    known = tmp_path / "known.csv"
    lines = truth.read_text().splitlines()
    known.write_text("\n".join(lines[:-1]) + "\n")  # without the image that the store lacks
    wanted = run(
        "submission=submission.csv",
        f"ground_truth={known}",
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
    assert "note: in 6 images the store lacks (box, class) pairs above score_threshold=" in shown


def test_sample_submission_chooses_images_and_order(
    run: Any, capsys: pytest.CaptureFixture[str], store: Path, tmp_path: Path
) -> None:
    sample = tmp_path / "sample.csv"
    sample.write_text("ImageId,EncodedPixels,ClassId\n4.jpg,1 1,23\n1.jpg,1 1,23\n")
    run(f"predictions={store}", f"sample_submission={sample}", "postprocess=winner")
    rows = read_rows(tmp_path / "submission.csv")
    assert list(dict.fromkeys(row["ImageId"] for row in rows)) == ["4.jpg", "1.jpg"]
    sample.write_text("ImageId,EncodedPixels,ClassId\n4.jpg,1 1,23\nx.jpg,1 1,23\n")
    error = refused(run, capsys, f"predictions={store}", f"sample_submission={sample}")
    assert "1 of the 2 images of" in error
    assert "the first is 'x.jpg'" in error


def test_multirun_writes_a_folder_a_job(
    run: Any, capsys: pytest.CaptureFixture[str], store: Path, truth: Path, tmp_path: Path
) -> None:
    arguments = (
        "-m",
        f"predictions={store}",
        f"ground_truth={truth}",
        "postprocess=winner",
        "postprocess.score_threshold=0.3,0.6",
        "postprocess.nms_iou_threshold=0.5",
    )
    run(*arguments)
    run(*arguments)
    folders = sorted(path.parent for path in tmp_path.rglob("score.json"))
    assert len(folders) == 4
    assert len({folder.parent for folder in folders}) == 2
    assert folders[1].name == (
        "1_postprocess.nms_iou_threshold=0.5,postprocess.score_threshold=0.6,postprocess=winner"
    )
    scores = [json.loads((folder / "score.json").read_text()) for folder in folders]
    assert scores[:2] == scores[2:]
    assert scores[0]["competition_map"] != scores[1]["competition_map"]
    assert all((folder / "submission.csv").exists() for folder in folders)
    assert not (tmp_path / "submission.csv").exists()
    error = refused(run, capsys, *arguments, f"output={tmp_path}/submission.csv")
    assert "in a multirun each job writes its own file; give a relative path" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predictions=nowhere"], "nowhere/meta.json: missing; a prediction store is a folder"),
        (["postprocess.score_threshold=2"], "postprocess.score_threshold=2: a number from 0 to 1"),
        (["+postprocess.per_class=1"], "postprocess.per_class: no such key; there are score_thr"),
        (["~postprocess.min_area_px"], "postprocess.min_area_px: missing; postprocess=default"),
        (["averaging=mean"], "averaging=mean: legal are per_class, pooled"),
        (["ground_truth=none.csv"], "none.csv"),
        (["sample_submission=none.csv"], "none.csv: not readable as a CSV file"),
    ],
)
def test_mistakes_end_in_one_line(
    run: Any, capsys: pytest.CaptureFixture[str], store: Path, arguments: list[str], message: str
) -> None:
    error = refused(run, capsys, f"predictions={store}", *arguments)
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error


def test_truth_of_other_images_and_an_empty_store(
    run: Any, capsys: pytest.CaptureFixture[str], store: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text("ImageId,EncodedPixels,Height,Width,ClassId\nx.jpg,1 5,10,10,3\n")
    error = refused(run, capsys, f"predictions={store}", f"ground_truth={other}")
    assert "has none of the 6 images that are written; its first is 'x.jpg'" in error
    PredictionStoreWriter(tmp_path / "empty", category_ids=[1], settings={}).close()
    assert "empty: holds no predictions" in refused(run, capsys, f"predictions={tmp_path}/empty")


@pytest.mark.parametrize(("group", "values"), [("default", DEFAULT), ("winner", WINNER)])
def test_groups_hold_the_values_of_the_recipe(group: str, values: dict[str, Any]) -> None:
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        config = compose("postprocess", overrides=[f"postprocess={group}"])
    assert to_plain(config.postprocess) == values
    settings_from(to_plain(config.postprocess))


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
