"""Sweeps as rows of a W&B group, read back from the offline files."""

from __future__ import annotations

import json

import pytest

from src.cli.postprocess import main
from src.errors import InputError
from src.tuning.dashboard import open_dashboard
from tests.helpers.lab_data import write_lab_data
from tests.helpers.wandb_file import read_records, read_row

GRID = "postprocess.score_threshold=0.3,0.6"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_lab_data(tmp_path_factory.mktemp("sweep"), images=4)


def test_each_job_is_a_row_of_one_group(run, data, tmp_path):
    store, ground_truth = data
    sweep = ("-m", f"predictions={store}", f"annotations={ground_truth}", "cache_dir=null")
    run(main, *sweep, "postprocess.score_threshold=0.3")  # a job of an earlier start, without rows
    shown = run(main, *sweep, GRID, "logger=wandb")
    assert shown.count("W&B is offline (no WANDB_API_KEY); later: wandb sync") == 1
    (folder,) = (tmp_path / "multirun" / "postprocess").iterdir()
    assert f"wandb sync {folder}/*/wandb/offline-run-*" in shown
    results = sorted(folder.glob("*/result.json"))
    assert len(results) == 2
    for path in results:
        (file,) = path.parent.glob("wandb/offline-run-*/run-*.wandb")
        row = read_row(file)
        assert (row.project, row.group) == ("instance-cascade", f"sweep {folder.name}")
        threshold = json.loads(path.read_text())["overrides"]["postprocess.score_threshold"]
        assert row.name == f"score_threshold={threshold}"
        assert row.config["postprocess"]["score_threshold"] == threshold
        assert row.config["postprocess"]["nms_kind"] == "class_wise"
        result = json.loads(path.read_text())["result"]
        assert {key: row.summary[key] for key in result} == result
        assert list(read_records(file))[-1].WhichOneof("record_type") in ("exit", "final", "footer")
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    table = json.loads(next(file.parent.glob("files/media/table/*.json")).read_text())
    assert "folder" in table["columns"]
    place = table["columns"].index("competition_map")
    written = sorted(json.loads(path.read_text())["result"]["competition_map"] for path in results)
    assert sorted(line[place] for line in table["data"]) == written
    row = read_row(file)
    assert (row.group, row.summary["jobs"]) == (f"sweep {folder.name}", 2)
    assert row.summary["best"] == max(written)
    run(main, *sweep, GRID, "logger=wandb")
    assert len(list(folder.glob("*/wandb/offline-run-*"))) == 2


def test_no_logger_no_rows(tmp_path):
    assert open_dashboard(None, group="a", directory=tmp_path) is None
    with pytest.raises(InputError, match=r"^logger must include wandb to show rows, got csv$"):
        open_dashboard({"csv": {}}, group="a", directory=tmp_path)


def test_online_it_says_where(tmp_path):
    logger = {"wandb": {"project": "p", "offline": False}}
    dashboard = open_dashboard(logger, group="sweep a", directory=tmp_path)
    assert dashboard is not None
    assert dashboard.location == "W&B: project p, group sweep a"
