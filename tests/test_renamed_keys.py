"""Keys that were renamed: one line that names the new one; stored configurations are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from src.cli.entry_point import CONFIG_DIRECTORY, compose_default
from src.cli.postprocess import main as postprocess_main
from src.errors import InputError
from src.renamed_keys import RENAMED_KEYS, check_renamed_keys, find_file, upgrade_keys
from src.score import main as score_main
from src.synthesize import main as synthesize_main
from src.tuning.sweeps import finished_result, read_results, write_result


def error_of(
    program: Any, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> str:
    monkeypatch.setattr("sys.argv", ["program", *arguments])
    with pytest.raises(SystemExit) as ended:
        program()
    assert ended.value.code == 2
    return str(capsys.readouterr().err)


@pytest.mark.slow
def test_the_configuration_has_every_new_key_and_no_old_one() -> None:
    for old, new in RENAMED_KEYS.items():
        if not new.startswith("space."):
            assert find_file(new, [CONFIG_DIRECTORY]) != "command line", new
        if old != "input":  # of src.import_predictions, which has annotations as well
            assert find_file(old, [CONFIG_DIRECTORY]) == "command line", old


@pytest.mark.parametrize(
    ("program", "argument", "line"),
    [
        (score_main, "ground_truth=a.csv", "ground_truth was renamed: use annotations"),
        (score_main, "+ground_truth=a.csv", "ground_truth was renamed: use annotations"),
        (score_main, "resamples=10", "resamples was renamed: use num_resamples"),
        (synthesize_main, "train_images=10", "train_images was renamed: use num_train_images"),
        (
            postprocess_main,
            "postprocess.remove=attribute_classes",
            "postprocess.remove was renamed: use postprocess.remove_categories",
        ),
        (
            postprocess_main,
            "+datamodule.train_images=x",
            "datamodule.train_images was renamed: use datamodule.images",
        ),
    ],
)
def test_an_old_key_on_the_command_line(
    program: Any, argument: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    error = error_of(program, [argument], monkeypatch, capsys)
    assert error == f"error: {line} (command line)\n"


def test_a_key_that_this_command_never_had_is_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    arguments = ["submission=a", "annotations=b", "workers=4"]
    assert "unknown key workers" in error_of(score_main, arguments, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("name", "text", "arguments", "line"),
    [
        (
            "postprocess/mine.yaml",
            "defaults: [default, _self_]\nremove: attribute_classes\n",
            ["postprocess=mine"],
            "postprocess.remove was renamed: use postprocess.remove_categories",
        ),
        (
            "experiment/mine.yaml",
            "# @package _global_\nground_truth: train.csv\n",
            ["+experiment=mine"],
            "ground_truth was renamed: use annotations",
        ),
        (
            "experiment/own_callbacks.yaml",
            "# @package _global_\ncallbacks: {coco_average_precision: null}\n",
            ["+experiment=own_callbacks"],
            "callbacks.coco_average_precision was renamed: use "
            "callbacks.evaluator.metrics.coco_average_precision",
        ),
        (
            "sweep/mine.yaml",
            "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: "
            "{postprocess.remove: 'none,attribute_classes'}}}\n",
            ["+sweep=mine"],
            "postprocess.remove was renamed: use postprocess.remove_categories",
        ),
    ],
)
def test_an_old_key_in_a_file_names_the_file(
    name: str,
    text: str,
    arguments: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    path = tmp_path / "conf" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    monkeypatch.chdir(tmp_path)
    given = [f"hydra.searchpath=[file://{tmp_path}/conf]", "predictions=none", *arguments]
    error = error_of(postprocess_main, given, monkeypatch, capsys)
    assert error.splitlines()[-1] == f"error: {line} ({path})"


def test_a_key_below_one_that_was_renamed() -> None:
    with pytest.raises(InputError, match=r"^ensemble\.best was renamed: use ensemble\.num_best "):
        check_renamed_keys({"ensemble": {"best": {"of": 3}}})
    check_renamed_keys({"callbacks": {"best": 1}, "trainer": {"rows": 3}})


def test_stored_configurations_get_the_keys_of_now() -> None:
    stored = {
        "ground_truth": {"path": "a"},
        "datamodule": {"train_images": "a", "validation_images": 4, "batch_size": 2},
        "postprocess": {"remove_categories": [3], "remove": "attribute_classes"},
        "winner": {"remove_categories": [1, 2], "remove": "none"},
        "callbacks": {"class_table": {"directory": "a"}},
        "module": {"score_floor": 0.1, "detector": {"rows": [{"best": 1}]}},
    }
    assert upgrade_keys(stored) == {
        "annotations": {"path": "a"},
        "datamodule": {"images": "a", "num_validation_images": 4, "batch_size": 2},
        "postprocess": {"remove_categories": [3, "attribute_classes"]},
        "winner": {"remove_categories": [1, 2]},
        "callbacks": {"class_table": {"directory": "a"}},
        "module": {"min_score": 0.1, "detector": {"rows": [{"best": 1}]}},
    }
    assert upgrade_keys(None) is None


def test_nothing_of_the_configurations_of_now_is_changed() -> None:
    for command in ("train", "search"):
        config = OmegaConf.to_container(compose_default(command))
        assert upgrade_keys(config) == config


def test_the_result_of_a_job_has_the_column_names_of_now(tmp_path: Path) -> None:
    result = {"competition_map": 0.5, "objects": 3}
    write_result(tmp_path / "job", identity={"a": 1}, overrides={"a": 1}, result=result)
    finished = finished_result(tmp_path / "job", {"a": 1})
    assert finished is not None
    assert finished["result"] == {"competition_map": 0.5, "num_detections": 3}
    (row,) = read_results(tmp_path).rows
    assert (row["num_detections"], "objects" in row) == (3, False)


def test_a_key_that_a_command_has_is_not_an_old_one_there() -> None:
    check_renamed_keys({"input": "a.json"}, is_own=lambda key: key == "input")
    with pytest.raises(InputError, match="input was renamed: use annotations"):
        check_renamed_keys({"input": "a.json"})
