"""Composed configurations, as the command line composes them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from src.cli.entry_point import CONFIG_DIRECTORY, register_resolvers


def project_files() -> list[Path]:
    """Return the project's YAML, relative to conf/; a file that git does not track is the user's.

    Without git, as in an archive, each file counts as the project's.
    """
    command = ["git", "-C", str(CONFIG_DIRECTORY), "ls-files", "-z", "--", "*.yaml"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        paths = [path.relative_to(CONFIG_DIRECTORY) for path in CONFIG_DIRECTORY.rglob("*.yaml")]
    else:
        paths = [Path(name) for name in listed.split("\0") if name]
    return sorted(path for path in paths if (CONFIG_DIRECTORY / path).exists())


FILES = project_files()
ENTRY_POINTS = [path.stem for path in FILES if len(path.parts) == 1]


def compose_config(name: str, overrides: list[str]) -> DictConfig:
    """Compose as the command line does, with a stand-in for what only a running program knows."""
    register_resolvers()
    with initialize_config_dir(config_dir=str(CONFIG_DIRECTORY), version_base="1.3"):
        return compose(config_name=name, overrides=overrides)
