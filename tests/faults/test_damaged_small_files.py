"""Small files that are cut, emptied or hostile: named, and made anew where they can be."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import LightningModule

from src.annotations.categories import read_label_descriptions
from src.annotations.coco_results import read_image_numbers
from src.annotations.conversion import convert
from src.callbacks import run_record
from src.callbacks.run_record import RunRecord
from src.datamodules.split import read_split
from src.errors import InputError
from src.io import read_json
from src.metrics.scoring import read_scores
from src.postprocess.settings import PostprocessSettings
from src.predictions.store import PredictionStore
from src.search import _shown
from src.synthetic import synthesize
from src.tuning.search_results import option_path
from src.tuning.search_space import SearchSpace
from src.tuning.settings_search import SettingsSearch
from src.tuning.sweeps import finished_result, write_result
from tests.helpers.candidates import make_settings
from tests.helpers.stores import make_images, write_store

DEEP = "[" * 100_000
DAMAGED = ["", '{"a": 1', DEEP, '{"a":' * 100_000, "\x00\x00", "[]", "null", "7"]
READERS = {
    "split": lambda path: read_split(path),
    "label descriptions": lambda path: read_label_descriptions(path),
    "scores": lambda path: read_scores(path),
    "COCO images": lambda path: read_image_numbers(path),
    "COCO annotations": lambda path: convert(path, path.with_name("o.csv")),
}


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("reader", READERS)
def test_readers_name_the_file(tmp_path: Path, reader: str, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"x\.json") as caught:
        READERS[reader](path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("name", ["meta.json", "rank00000_done.json", "rank00000_failed.json"])
def test_a_prediction_store_names_the_file(tmp_path: Path, name: str, content: str) -> None:
    write_store(tmp_path, make_images(0, 2))
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=name):
        PredictionStore(tmp_path)


@pytest.mark.parametrize("content", [*DAMAGED[:5], '{"a": 1}'])
def test_a_damaged_record_of_starts_keeps_no_run_from_resuming(
    tmp_path: Path,
    content: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "run.json").write_text(content)
    record = RunRecord(config={}, directory=tmp_path)
    monkeypatch.setattr(run_record, "read_commit", lambda directory: {"commit": None})
    trainer: Any = SimpleNamespace(is_global_zero=True, loggers=[])
    with caplog.at_level(logging.WARNING):
        record.setup(trainer, LightningModule(), "fit")
    assert "run.json" in caplog.text
    assert "moved to run.json.damaged, a new record begins" in caplog.text
    assert [start["commit"] for start in read_json(tmp_path / "run.json")] == [None]
    assert (tmp_path / "run.json.damaged").read_text() == content


def test_a_damaged_search_starts_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def search() -> SettingsSearch:
        return SettingsSearch(
            tmp_path / "search.db",
            identity={"a": 1},
            space=SearchSpace({"score_threshold": [0.1, 0.2, 0.3]}, make_settings()),
            folds=np.array([0, 1]),
            seed=0,
            num_random_trials=2,
        )

    def score(settings: PostprocessSettings) -> np.ndarray:
        return np.full(2, settings.score_threshold)

    first = search()
    first.run(3, score)
    whole = (tmp_path / "search.db").read_bytes()
    assert len(search().trials) == 3
    for damaged in (whole[: len(whole) // 2], b"no database at all", b"\x00" * len(whole)):
        (tmp_path / "search.db").write_bytes(damaged)
        again = search()
        assert "moved to search.db.damaged, the search starts again" in caplog.text
        assert again.trials == []
        again.run(3, score)
        assert [one.settings for one in again.trials] == [one.settings for one in first.trials]


@pytest.mark.parametrize("content", [*DAMAGED, '{"shown": -1}', '{"shown": "3"}'])
def test_damaged_counts_of_rows_show_all_again(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows_shown.json"
    assert _shown(path) == 0
    path.write_text('{"shown": 3}')
    assert _shown(path) == 3
    path.write_text(content)
    assert _shown(path) == 0


@pytest.mark.parametrize("content", [*DAMAGED, '{"identity": {"a": 1}}'])
def test_a_job_with_a_damaged_result_is_done_again(tmp_path: Path, content: str) -> None:
    write_result(tmp_path, identity={"a": 1}, overrides={}, result={"competition_map": 0.5})
    assert finished_result(tmp_path, {"a": 1}) is not None
    (tmp_path / "result.json").write_text(content)
    assert finished_result(tmp_path, {"a": 1}) is None


def test_drawing_goes_on_over_a_damaged_note(tmp_path: Path) -> None:
    request = {"num_train_images": 2, "num_test_images": 1, "seed": 1, "image_size": (64, 96)}
    synthesize(tmp_path / "whole", **request)
    (tmp_path / "cut" / ".rows").mkdir(parents=True)
    note = json.loads((tmp_path / "whole" / "synthesis.json").read_text())
    (tmp_path / "cut" / "synthesis.json").write_text(json.dumps(note))
    for name in ("train", "test"):
        (tmp_path / "cut" / ".rows" / f"{name}-00000000.json").write_text('{"a": [')
    synthesize(tmp_path / "cut", **request)
    names = sorted(path.relative_to(tmp_path / "whole") for path in tmp_path.glob("whole/*.csv"))
    assert names
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_option_that_is_no_text_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "postprocess").mkdir()
    (tmp_path / "postprocess" / "found.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="was written by no search and is not overwritten"):
        option_path(tmp_path, "found")
