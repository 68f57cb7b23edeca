"""Composed configurations, as the command line composes them."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from src.cli.entry_point import CONFIG_DIRECTORY, register_resolvers
from src.tuning.search_results import is_found

FILES = sorted(
    path.relative_to(CONFIG_DIRECTORY)
    for path in CONFIG_DIRECTORY.rglob("*.yaml")
    if not is_found(path)  # those that a search wrote are the user's
)
ENTRY_POINTS = [path.stem for path in FILES if len(path.parts) == 1]


def compose_config(name: str, overrides: list[str]) -> DictConfig:
    """Compose as the command line does, with a stand-in for what only a running program knows."""
    register_resolvers()
    with initialize_config_dir(config_dir=str(CONFIG_DIRECTORY), version_base="1.3"):
        return compose(config_name=name, overrides=overrides)
