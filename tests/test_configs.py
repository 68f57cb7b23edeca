"""Every YAML below conf/ is composed, and what it describes is built."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from src.cli.entry_point import CONFIG_DIRECTORY, register_resolvers, to_plain
from src.postprocess.settings import PostprocessSettings
from tests.helpers.configs import ENTRY_POINTS, FILES, compose_config, project_files

OPTIONS = [path for path in FILES if len(path.parts) > 1 and path.parts[0] != "hydra"]
EXPERIMENTS = [path for path in OPTIONS if path.parts[0] == "experiment"]


def test_a_file_that_git_does_not_track_is_the_users() -> None:
    """Such a file, an invalid one too, must not fail the tests of the project's own."""
    if not (CONFIG_DIRECTORY.parent / ".git").exists():
        pytest.skip("not a git checkout: every file counts as the project's")
    path = CONFIG_DIRECTORY / "experiment" / f"users_{os.getpid()}.yaml"
    path.write_text("a: [1")
    try:
        assert project_files() == FILES
    finally:
        path.unlink()


def test_every_file_is_counted() -> None:
    assert len(FILES) > 50


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_entry_point_composes_and_has_help(name: str) -> None:
    register_resolvers()
    with initialize_config_dir(config_dir=str(CONFIG_DIRECTORY), version_base="1.3"):
        config = compose(config_name=name, return_hydra_config=True)
    assert f"python -m src.{name}" in config.hydra.help.header
    assert config.hydra.job.name == name


# Tests in tests/modules build them, too.
LARGE = ("swin_large", "swin_tiny", "resnext101", "resnet50", "r50", "x101", "heads")


def one_option(path: Path) -> Any:
    is_large = path.stem.removeprefix("htc_").startswith(LARGE)
    return pytest.param(path, marks=[pytest.mark.slow] * is_large)


@pytest.mark.parametrize("option", [one_option(path) for path in OPTIONS], ids=str)
def test_option_composes_and_builds(option: Path, tmp_path: Path) -> None:
    group, name = "/".join(option.parts[:-1]), option.stem
    if group == "sweep":  # of thresholds
        config = compose_config("postprocess", [f"+sweep={name}", "output_dir=."])
        PostprocessSettings.from_config(to_plain(config.postprocess))
        return
    if group == "metric":
        compose_config("score", [f"metric={name}"])
        return
    overrides = [f"paths.output_dir={tmp_path}", f"paths.data_dir={tmp_path}"]
    if option != Path("callbacks/default.yaml"):  # always there; others add to it
        overrides.append(f"{'+' * (group in ('experiment', 'callbacks'))}{group}={name}")
    if option == Path("module/htc_heads.yaml"):  # the others add a backbone
        overrides.append("+module/backbone=resnet50")
    if "convnext" in name and importlib.util.find_spec("mmpretrain") is None:
        pytest.skip("make mmpretrain installs it")
    program = "predict" if group in ("tta", "ensemble", "fusion") else "train"
    config = compose_config(program, overrides)
    OmegaConf.resolve(config)
    if group == "experiment":
        instantiate(config.module)
        return
    node = config[group.partition("/")[0]]
    for part in [node] if "_target_" in node else node.values():
        if isinstance(part, DictConfig) and "_target_" in part:
            instantiate(part)
