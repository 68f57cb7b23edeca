"""The values of a sweep are composed before its first job, each once."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import ConfigCompositionException

from src.cli.postprocess import main as postprocess
from src.tuning.sweeps import check_jobs
from tests.helpers.lab_data import write_own_data


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    store, ground_truth = write_own_data(tmp_path_factory.mktemp("own"), 2, 1)
    return f"predictions={store}", f"annotations={ground_truth}", "cache_dir=null", "-m"


def test_each_value_is_composed_with_the_first_job_that_has_it() -> None:
    values = [[f"{key}={number}" for number in range(10)] for key in "abc"]
    jobs = list(itertools.product(*values))
    composed: list[Any] = []
    check_jobs(None, jobs, lambda _, chosen: composed.extend(chosen))  # type: ignore[arg-type]
    assert {one for job in composed for one in job} == {one for of_key in values for one in of_key}
    assert len(composed) == 1 + 3 * 9
    assert composed[0] == jobs[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("postprocess=winner,winer",), "postprocess must be .*winner.*, got winer"),
        (("postprocess.min_area_px=1,2", "postprocess.min_area=1"), "unknown key .*min_area"),
        (("postprocess.min_area_px=1,2", "competition=coco,cco"), "competition must be .*got cco"),
    ],
)
def test_a_value_that_no_job_can_have_is_refused_before_the_first(
    refused: Any, inputs: tuple[str, ...], values: tuple[str, ...], message: str
) -> None:
    assert re.fullmatch(f"error: {message}.*", refused(postprocess, *inputs, *values))
    assert not list(Path.cwd().glob("multirun/*/*/*/result.json"))


def test_values_that_only_together_are_wrong_end_the_sweep_in_one_line(
    refused: Any, inputs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    compose = ConfigLoaderImpl.load_sweep_config

    def refuse(self: Any, master_config: Any, sweep_overrides: list[str]) -> Any:
        if {"postprocess.min_area_px=2", "postprocess.score_threshold=0.4"} <= {*sweep_overrides}:
            raise ConfigCompositionException("these two values exclude each other")
        return compose(self, master_config, sweep_overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", refuse)
    values = ("postprocess.min_area_px=1,2", "postprocess.score_threshold=0.3,0.4")
    line = refused(postprocess, *inputs, *values)
    assert line.endswith("error: these two values exclude each other")
    assert "Traceback" not in line
    assert len(list(Path.cwd().glob("multirun/*/*/*/result.json"))) == 3
