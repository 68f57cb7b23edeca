"""What every entry point shares: resolvers, the check of the config, and errors as one line."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf

from src.annotations.errors import InputError

CONFIG_DIRECTORY = Path(__file__).resolve().parents[1] / "conf"


def register_resolvers() -> None:
    """Register the resolvers that the YAML files use; calling it twice does nothing.

    ``${tuple:1,2}``: a Python tuple, which YAML lacks and some mmcv layers want.
    ``${wandb_offline:}``: whether there is no key to go online with.
    """
    OmegaConf.register_new_resolver("tuple", lambda *values: tuple(values), replace=True)
    OmegaConf.register_new_resolver(
        "wandb_offline", lambda: not os.environ.get("WANDB_API_KEY"), replace=True
    )


def check_missing(config: DictConfig) -> None:
    """Refuse a config with mandatory values left open.

    Raises:
        InputError: names every key that is still ``???``.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        wanted = " ".join(f"{key}=..." for key in missing)
        raise InputError(
            f"these values have no default, give them: {wanted} (--help explains each)"
        )


def to_plain(config: Any) -> Any:
    """Turn a config node into plain dicts, lists and values, with interpolations resolved."""
    if isinstance(config, DictConfig | ListConfig):
        return OmegaConf.to_container(config, resolve=True)
    return config


def instantiate_all(group: Mapping[Any, Any] | None) -> list[Any]:
    """Build every object of a group of named objects, such as callbacks; null is left out."""
    return [hydra.utils.instantiate(node) for node in (group or {}).values() if node is not None]


def users_mistake(error: BaseException | None) -> InputError | None:
    """Find the ``InputError`` behind an exception; Hydra wraps what a constructor raises."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def one_line(mistake: InputError) -> str:
    """Return the message alone, where a worker of a loader put its traceback around it, too."""
    return str(mistake).rpartition(f"{InputError.__module__}.{InputError.__name__}: ")[2].strip()


def entry_point(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Make a Hydra program of a function that takes the composed config.

    A user's mistake (``InputError``) ends the program with one line on stderr and exit code 2;
    anything else is a bug and keeps its traceback.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        @functools.wraps(function)
        def run(config: DictConfig) -> Any:
            try:
                check_missing(config)
                return function(config)
            except (InputError, InstantiationException) as error:
                mistake = users_mistake(error)
                if mistake is None:
                    raise
                sys.stdout.flush()
                print(f"error: {one_line(mistake)}", file=sys.stderr)
                sys.exit(2)

        register_resolvers()
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        program: Callable[[], Any] = hydra.main(
            version_base="1.3", config_path=str(CONFIG_DIRECTORY), config_name=config_name
        )(run)
        return program

    return decorate
