"""The program src.search: what it finds, shows and writes, and what it refuses."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml

from src.cli.entry_point import CONFIG_DIRECTORY
from src.cli.postprocess import main as postprocess
from src.compare import main as compare
from src.errors import InputError
from src.postprocess.settings import PostprocessSettings
from src.search import main
from src.tuning.search_results import is_found, option_path, write_option
from tests.helpers.candidates import make_settings
from tests.helpers.lab_data import write_lab_data
from tests.helpers.wandb_file import history, read_records, read_row

IMAGES = 60
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_lab_data(tmp_path_factory.mktemp("search"), images=IMAGES)


@pytest.fixture
def arguments(data, tmp_path):
    store, ground_truth = data
    return (
        f"predictions={store}",
        f"annotations={ground_truth}",
        f"config_dir={tmp_path}/own",
        f"output_dir={tmp_path}/out",
        "num_trials=36",
        "num_random_trials=16",
        "num_resamples=500",
        "space.nms_kind=[class_wise,soft_linear]",
        "space.mask_threshold_per_class=null",
    )


def last_line(shown):
    return json.loads(shown.splitlines()[-1])


def test_found_settings_beat_the_winners_on_held_out_images(run, arguments, data, tmp_path):
    shown = run(main, *arguments, "name=mine")
    result = last_line(shown)
    scores = {name: own["estimate"] for name, own in result["scores"].items()}
    assert scores["winner"] <= scores["cross_validated"] <= scores["in_sample"]
    # a threshold for each class is what these data ask for
    assert scores["cross_validated"] > scores["cross_validated_without_class_thresholds"]
    assert result["verdict"] == "better"
    assert result["over_winner"]["cross_validated"]["difference"]["low"] > 0
    assert (result["images"], result["folds"], result["trials"]) == (IMAGES, 5, 36)
    for name in ("default (S8)", "winner (S9)", "found: cross-validated", "found: in-sample"):
        assert name in shown
    assert "more than noise." in shown
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result

    path = tmp_path / "own" / "postprocess" / "mine.yaml"
    assert f'wrote {path}: postprocess=mine "hydra.searchpath=[file://{tmp_path}/own]"' in shown
    text = path.read_text()
    assert text.startswith("# Found by python -m src.search.\n# predictions ")
    assert "Gain over the winner's settings on held-out images: +0." in text
    settings = PostprocessSettings.from_config(yaml.safe_load(text))
    assert json.loads(json.dumps(settings.to_dict())) == result["settings"]

    # the next command takes it by its name, and scores as the search said
    store, ground_truth = data
    own = run(
        postprocess,
        f"predictions={store}",
        f"annotations={ground_truth}",
        "postprocess=mine",
        f"hydra.searchpath=[file://{tmp_path}/own]",
    )
    assert last_line(own)["competition_map"] == scores["in_sample"]

    # what compare would call better, on the images that chose it, under another name
    Path("copy.csv").write_text(ground_truth.read_text())
    search_path = f"hydra.searchpath=[file://{tmp_path}/own]"
    sides = (f"a={store}", f"b={store}", "b_postprocess=mine", "num_resamples=500")
    compared = run(compare, *sides, "annotations=copy.csv", search_path, "cache_dir=null")
    gain = result["over_winner"]["cross_validated"]["difference"]
    note = (
        f"note: b's settings (mine) were chosen by a search on {IMAGES} of these {IMAGES} images, "
        "so the score is in-sample and looks better than it is; the search's cross-validated gain "
        f"over the winner's settings is {gain['estimate']:+.4f} (95% interval "
        f"{gain['low']:+.4f} to {gain['high']:+.4f}, per_class): better\n"
    )
    assert note in compared
    assert "b is better, in-sample (per_class" in compared
    assert last_line(compared)["verdict"] == "b is better, in-sample"
    own_gain = last_line(compared)["in_sample"]["b"].pop("cross_validated_gain")
    assert own_gain == gain
    # the same from the score file, and from the submission beside it
    assert note.replace("b's", "the") in own
    for b in ("score.json", "submission.csv"):
        pair = (f"a={b}", "b=score.json", f"annotations={ground_truth}", "num_resamples=50")
        compared = last_line(run(compare, *pair, "cache_dir=null"))
        assert set(compared["in_sample"]) == {"a", "b"}
        assert compared["verdict"] == "within noise, in-sample"
    Path("submission.csv").write_text(Path("submission.csv").read_text() + "\n")
    assert set(last_line(run(compare, *pair, "cache_dir=null"))["in_sample"]) == {"b"}


@pytest.mark.slow
def test_a_stopped_search_ends_as_one_that_ran_through(run, arguments, tmp_path):
    whole = last_line(run(main, *arguments))
    run(main, *arguments, f"output_dir={tmp_path}/again", "num_trials=20")
    shown = run(main, *arguments, f"output_dir={tmp_path}/again")
    assert f"{tmp_path}/again/search.db: resumes after 20 trials" in shown
    assert last_line(shown) == whole
    storage = f"sqlite:///{tmp_path}/again/search.db"
    assert len(optuna.load_study(study_name="search", storage=storage).trials) == 36
    error = run(main, *arguments, f"output_dir={tmp_path}/again", "averaging=pooled")
    assert error.startswith(f"error: {tmp_path}/again/search.db: holds a search with other values")
    assert "Different: averaging: 'per_class' there, 'pooled' here" in error


@pytest.mark.slow
def test_a_killed_search_goes_on(arguments, tmp_path):
    whole, killed = ([*arguments, f"output_dir={tmp_path}/{name}"] for name in "ab")
    command = [sys.executable, "-m", "src.search", "cache_dir=null"]
    done = subprocess.run([*command, *whole], cwd=ROOT, capture_output=True, text=True, check=True)
    process = subprocess.Popen([*command, *killed], cwd=ROOT, stdout=subprocess.DEVNULL)
    storage = tmp_path / "b" / "search.db"

    def trials():
        """As SQLite has them; none before the file is made."""
        try:
            with sqlite3.connect(f"file:{storage}?mode=ro", uri=True) as connection:
                return int(connection.execute("select count(*) from trials").fetchone()[0])
        except sqlite3.OperationalError:
            return 0

    while trials() < 7:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert 7 <= trials() < 36
    again = subprocess.run(
        [*command, *killed], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert last_line(again.stdout) == last_line(done.stdout)
    assert trials() == 36


def test_within_noise_is_said(run, arguments):
    """Nothing to find: the winner's own settings are the space."""
    shown = run(
        main,
        *arguments[:-2],
        "num_trials=3",
        "~space",
        "+space={score_threshold: [0.5], nms_iou_threshold: [0.3]}",
    )
    assert f"within noise: {IMAGES} images cannot tell the two apart." in shown
    assert last_line(shown)["verdict"] == "within noise"


def test_a_search_is_one_run_with_a_table_of_its_trials(run, arguments, tmp_path):
    """A start that resumes has the same id, so it is the same run, whose table has all trials."""
    few = (*arguments, "num_random_trials=2", "space.score_threshold_per_class=null")
    first = run(main, *few, "num_trials=2", "logger=wandb")
    assert first.count("W&B is offline (no WANDB_API_KEY); later: wandb sync") == 1
    run(main, *few, "num_trials=3", "logger=wandb")
    run(main, *few, "num_trials=3", "logger=wandb")  # nothing new, nothing written
    files = sorted(tmp_path.glob("out/wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({path.stem.removeprefix("run-") for path in files}) == 1, "one id"
    storage = f"sqlite:///{tmp_path}/out/search.db"
    scores = [one.value for one in optuna.load_study(study_name="search", storage=storage).trials]
    row = read_row(files[1])
    assert (row.project, row.group, row.name) == ("instance-cascade", *("search found",) * 2)
    assert (row.summary["trials"], row.summary["best"]) == (3, max(scores))
    curves = [history(list(read_records(path))) for path in files]
    logged = [[one["competition_map"] for one in curve if "best" in one] for curve in curves]
    assert logged == [scores[:2], scores[2:]]
    tables = sorted(files[1].parent.glob("files/media/table/*.json"))
    table = json.loads(tables[0].read_text())
    assert table["columns"][:3] == ["trial", "competition_map", "proposed_by"]
    assert [line[:2] for line in table["data"]] == [[n, score] for n, score in enumerate(scores)]


@pytest.mark.slow
def test_each_trial_is_a_row_of_one_group_if_asked_for(run, arguments, tmp_path):
    few = (*arguments, "num_random_trials=2", "space.score_threshold_per_class=null")
    few = (*few, "trial_runs=true")
    run(main, *few, "num_trials=2")
    shown = run(main, *few, "num_trials=4", "logger=wandb")
    assert shown.count("W&B is offline (no WANDB_API_KEY); later: wandb sync") == 1
    files = sorted(tmp_path.glob("out/wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 4  # the two of the first start as well
    storage = f"sqlite:///{tmp_path}/out/search.db"
    trials = optuna.load_study(study_name="search", storage=storage).trials
    rows = {row.name: row for row in map(read_row, files)}
    assert sorted(rows) == [f"trial {number:04d}" for number in range(4)]
    assert {(row.project, row.group) for row in rows.values()} == {
        ("instance-cascade", "search found")
    }
    for trial in trials:
        row = rows[f"trial {trial.number:04d}"]
        assert row.summary["competition_map"] == trial.value
        for key, value in trial.params.items():
            assert row.config["postprocess"][key] == pytest.approx(value)
    run(main, *few, "num_trials=4", "logger=wandb")
    assert len(list(tmp_path.glob("out/wandb/offline-run-*"))) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["num_trials=0"], "num_trials must be a whole number of at least 1, got 0"),
        (["num_folds=1"], "num_folds must be a whole number of at least 2, got 1"),
        (
            ["num_folds=61"],
            "num_folds must be at most 60, the images with predictions and ground truth, got 61",
        ),
        (["averaging=x"], "averaging must be one of per_class, pooled, got"),
        (["name=a/b"], "name must be made of letters, digits, _ and -, got 'a/b'"),
        (["space.nms_kind=[soft]"], "space.nms_kind: postprocess.nms_kind must be one of "),
        (["logger=default"], "logger must include wandb to show rows, got csv, tensorboard"),
        (
            ["name=winner", "config_dir=null"],
            "name must be a new one or that of an earlier search, got 'winner' "
            f"({CONFIG_DIRECTORY}/postprocess/winner.yaml was written by no search and is not "
            "overwritten)",
        ),
    ],
)
def test_mistakes_are_one_line(run, arguments, changes, message):
    assert run(main, *arguments, *changes).startswith(f"error: {message}")


def test_only_what_a_search_wrote_is_overwritten(tmp_path: Path):
    path = option_path(tmp_path, "a")
    for threshold in (0.4, 0.6):
        write_option(option_path(tmp_path, "a"), make_settings(score_threshold=threshold), ["b"])
        assert is_found(path)
        assert (
            PostprocessSettings.from_config(yaml.safe_load(path.read_text())).score_threshold
            == threshold
        )
    assert path.read_text().splitlines()[1] == "# b"
    path.write_text("score_threshold: 0.5\n")
    with pytest.raises(InputError, match=r"got 'a' \(.*written by no search"):
        option_path(tmp_path, "a")
