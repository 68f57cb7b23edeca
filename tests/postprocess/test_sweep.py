"""Sweeps of ``python -m src.postprocess``: folders, the table, resuming, other launchers."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from src.compare import main as compare
from src.predictions.store import PredictionStore
from src.report import main as report
from src.score import main as score
from src.tuning import session

ROOT = Path(__file__).parents[2]
GRID = ("postprocess.score_threshold=0.3,0.6", "postprocess.nms_iou_threshold=0.5")


@pytest.fixture
def arguments(store: Path, ground_truth: Path) -> tuple[str, ...]:
    return (
        "-m",
        f"predictions={store}",
        f"annotations={ground_truth}",
        "postprocess=winner",
        *GRID,
    )


def results(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.rglob("result.json")}


def test_each_job_has_a_short_folder_and_its_overrides_in_it(
    run: Any, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    shown = run(*arguments)
    (sweep,) = (tmp_path / "multirun" / "postprocess").iterdir()
    assert sweep.name.startswith("store-")
    folders = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert len(folders) == 2
    for folder in folders:
        assert re.fullmatch("[0-9a-f]{8}", folder.name)
        files = sorted(path.name for path in folder.iterdir())
        assert files == ["overrides.yaml", "result.json", "score.json", "submission.csv"]
    typed = [yaml.safe_load((folder / "overrides.yaml").read_text()) for folder in folders]
    grid = [f"postprocess.score_threshold={score}" for score in ("0.3", "0.6")]
    assert sorted(typed) == sorted([*arguments[1:4], one, GRID[1]] for one in grid)
    assert not (tmp_path / "submission.csv").exists()
    lines = shown.splitlines()
    scored = r"0\.\d{4} \(0\.\d{4} to 0\.\d{4}\)"
    for number, threshold in enumerate(("0.3", "0.6"), start=1):
        wanted = rf"job {number} of 2  {scored}  score_threshold={threshold}  \d+ detections, "
        wanted += "[0-9a-f]{8}(, remove took most detections)?"
        assert re.fullmatch(wanted, lines[number - 1])
    assert len(lines) == 5  # two jobs, the table, the best, and its command
    assert f"wrote {sweep.relative_to(tmp_path)}/results.csv and results.parquet" in shown

    table = pd.read_csv(sweep / "results.csv")
    assert table.equals(pd.read_parquet(sweep / "results.parquet").astype(table.dtypes))
    assert list(table.columns[:6]) == [
        "postprocess",
        "postprocess.nms_iou_threshold",
        "postprocess.score_threshold",
        "competition_map",
        "low",
        "high",
    ]
    assert sorted(table["postprocess.score_threshold"]) == [0.3, 0.6]
    assert table["competition_map"].is_monotonic_decreasing
    for row in table.to_dict("records"):
        score = json.loads((sweep / row["folder"] / "score.json").read_text())
        assert row["competition_map"] == score["competition_map"]
        assert (row["low"], row["high"]) == (score["interval"]["low"], score["interval"]["high"])
        assert (row["scored_images"], row["images"], row["violations"]) == (4, 6, 0)
    best = table.to_dict("records")[0]
    folder = sweep.relative_to(tmp_path) / best["folder"]
    assert lines[3] == (
        f"best of 2 jobs: {best['competition_map']:.4f} ({best['low']:.4f} to {best['high']:.4f}), "
        f"{folder}"
    )
    command = shlex.split(lines[4])
    assert command[:3] == ["python", "-m", "src.postprocess"]
    again = run(*command[3:])
    assert json.loads(again.splitlines()[-1])["competition_map"] == best["competition_map"]


@pytest.mark.parametrize(
    "given",
    [
        ("postprocess.score_threshold=0.3,0.30,0.6,0.3",),
        ("postprocess.score_threshold=0.9", "postprocess.score_threshold=0.3,0.6"),
        ("postprocess.score_threshold=choice(0.3,0.6,0.6)",),
    ],
)
def test_a_setting_given_twice_counts_once(
    run: Any, arguments: tuple[str, ...], given: tuple[str, ...], tmp_path: Path
) -> None:
    shown = run(*arguments[:-2], *given)
    assert [line[:12] for line in shown.splitlines()[:2]] == ["job 1 of 2  ", "job 2 of 2  "]
    assert "best of 2 jobs" in shown
    assert len(results(tmp_path)) == 2


def test_one_row_for_settings_written_in_two_ways(
    run: Any, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    run(*arguments[:-2], "postprocess.score_threshold=0.5,0.6")  # winner's own is 0.5
    shown = run(*arguments[:-2])
    assert "job 1 of 1  0." in shown
    assert "best of 2 jobs" in shown
    assert len(results(tmp_path)) == 3
    assert len(pd.read_csv(next(tmp_path.rglob("results.csv")))) == 2


def test_a_jobs_folder_is_taken_as_it_is(
    run: Any, arguments: tuple[str, ...], ground_truth: Path, tmp_path: Path
) -> None:
    run(*arguments)
    one, other = sorted(path.parent for path in tmp_path.rglob("result.json"))
    compared = run(f"a={one}", f"b={other}", "num_resamples=200", program=compare)
    summaries = [json.loads((path / "score.json").read_text()) for path in (one, other)]
    compared = json.loads(compared.splitlines()[-1])
    assert [compared[side]["estimate"] for side in "ab"] == pytest.approx(
        [summary["competition_map"] for summary in summaries]
    )
    known = tmp_path / "known.csv"
    known.write_text("".join(ground_truth.read_text().splitlines(keepends=True)[:-1]))
    scored = run(f"submission={one}", f"annotations={known}", program=score)
    assert json.loads(scored.splitlines()[-1])["competition_map"] == pytest.approx(
        summaries[0]["competition_map"]
    )
    few = ("num_resamples=100", "num_worst=1", "num_best=0")
    shown = run(f"submission={one}", f"annotations={known}", *few, program=report)
    assert f"score {summaries[0]['competition_map']:.4f}" in shown
    shown = run(f"sweep={one.parent}", program=report)
    assert shown.startswith("wrote report.html: best of 2 jobs 0.")


def test_a_job_scores_as_a_run_alone(run: Any, arguments: tuple[str, ...], tmp_path: Path) -> None:
    run(*arguments)
    for name, done in results(tmp_path).items():
        score = f"postprocess.score_threshold={done['overrides']['postprocess.score_threshold']}"
        alone = run(*arguments[1:4], "postprocess.nms_iou_threshold=0.5", score)
        summary = json.loads(alone.splitlines()[-1])
        assert summary["competition_map"] == done["result"]["competition_map"]
        folder = next(tmp_path.rglob(name))
        assert (folder / "submission.csv").read_bytes() == Path("submission.csv").read_bytes()


def test_a_sweep_goes_on_where_it_stopped(
    run: Any, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    run(*arguments)
    before = results(tmp_path)
    gone = sorted(tmp_path.rglob("result.json"))[0]
    stays = sorted(tmp_path.rglob("submission.csv"))[1]
    gone.unlink()  # as a killed job leaves its folder
    time_before = stays.stat().st_mtime_ns
    shown = run(*arguments[:-2], "postprocess.score_threshold=0.3,0.6,0.9", arguments[-1])
    assert len(re.findall(r"\d detections, ", shown)) == 3
    assert shown.count(", done before\n") == 1
    assert shown.count(" of 3  0.") == 3
    assert stays.stat().st_mtime_ns == time_before
    after = results(tmp_path)
    assert {name: after[name] for name in before} == before
    table = pd.read_csv(next(tmp_path.rglob("results.csv")))
    assert sorted(table["postprocess.score_threshold"]) == [0.3, 0.6, 0.9]


def test_another_grid_adds_columns_with_the_values_that_were_in_force(
    run: Any, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    run(*arguments)
    run(*arguments[:-2], "postprocess.mask_threshold=0.4", "postprocess.max_per_image=null")
    (path,) = tmp_path.rglob("results.csv")
    table = pd.read_csv(path).sort_values(
        ["postprocess.mask_threshold", "postprocess.score_threshold"]
    )
    # winner's own: mask 0.45, score 0.5, NMS 0.3, 100 objects
    assert table["postprocess.mask_threshold"].tolist() == [0.4, 0.45, 0.45]
    assert table["postprocess.score_threshold"].tolist() == [0.5, 0.3, 0.6]
    assert table["postprocess.max_per_image"].fillna(0).tolist() == [0, 100, 100]


def test_other_inputs_lie_elsewhere_and_changed_ones_are_not_overwritten(
    run: Any,
    refused: Any,
    arguments: tuple[str, ...],
    ground_truth: Path,
    tmp_path: Path,
) -> None:
    copy = tmp_path / "truth.csv"
    copy.write_bytes(ground_truth.read_bytes())
    elsewhere = [*arguments[:2], f"annotations={copy}", *arguments[3:]]
    run(*arguments)
    run(*elsewhere)
    assert len(list((tmp_path / "multirun" / "postprocess").iterdir())) == 2
    copy.write_text("".join(copy.read_text().splitlines(keepends=True)[:-1]))
    error = refused(*elsewhere)
    assert "result.json: the result of other settings or files lies there" in error
    assert "it is not overwritten; give another hydra.sweep.dir, or delete it" in error
    assert "Different: annotations.files.truth.csv: [" in error


def test_one_job_cannot_write_anothers_file(
    refused: Any, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    error = refused(*arguments, f"output={tmp_path}/submission.csv")
    assert (
        "output must be a relative path in a multirun, where each job writes its own file" in error
    )


def test_jobs_of_one_process_share_what_they_read(
    run: Any, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    session._LAST.clear()
    opened: list[Path] = []

    class Counted(PredictionStore):
        def __init__(self, directory: Any) -> None:
            opened.append(Path(directory))
            super().__init__(directory)

    monkeypatch.setattr(session, "PredictionStore", Counted)
    run(*arguments)
    assert opened == [store]
    os.utime(store / "meta.json")  # it may hold other predictions now
    run(*arguments, "hydra.sweep.dir=again")
    assert opened == [store, store]
    session._LAST.pop("opened").close()
    session._LAST.clear()


def test_a_grid_from_a_file(run: Any, store: Path, ground_truth: Path, tmp_path: Path) -> None:
    grid = tmp_path / "conf" / "sweep"
    grid.mkdir(parents=True)
    (grid / "small.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n"
        "      postprocess.mask_threshold: 0.4,0.5\n"
        "      postprocess.remove_categories: '[],[attribute_classes]'\n"
    )
    run(
        f"predictions={store}",
        f"annotations={ground_truth}",
        "+sweep=small",
        f"hydra.searchpath=[file://{grid.parent}]",
    )
    table = pd.read_csv(next(tmp_path.rglob("results.csv")))
    assert len(table) == 4
    assert set(table["postprocess.remove_categories"]) == {"[]", '["attribute_classes"]'}
    assert "sweep" not in table.columns


def test_long_overrides_make_short_folders(run: Any, store: Path, tmp_path: Path) -> None:
    many = ",".join(f"{number}:0.{number + 10}" for number in range(46))
    other = many.replace("0:0.10", "0:0.11")
    run(
        "-m",
        f"predictions={store}",
        f"postprocess.score_threshold_per_class={{{many}}},{{{other}}}",
    )
    folders = [path.parent for path in tmp_path.rglob("result.json")]
    assert len(folders) == 2
    assert all(len(folder.name) == 8 for folder in folders)
    table = pd.read_parquet(next(tmp_path.rglob("results.parquet")))
    assert json.loads(table["postprocess.score_threshold_per_class"][0])["45"] == 0.55
    assert table["competition_map"].isna().all()


@pytest.mark.slow
def test_joblib_runs_jobs_side_by_side(
    store: Path, ground_truth: Path, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "src.postprocess", *arguments, "hydra/launcher=joblib"]
    command += ["hydra.launcher.n_jobs=2", f"hydra.sweep.dir={tmp_path}/sweep"]
    command += [f"cache_dir={tmp_path}/cache"]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        table = pd.read_csv(tmp_path / "sweep" / "results.csv")
        assert sorted(table["postprocess.score_threshold"]) == [0.3, 0.6]
        assert table["competition_map"].notna().all()
    assert done.stdout.count(", done before") == 2
