"""Entry point of every command: resolvers, checks of the config, one-line errors."""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
)
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from src.cli.arguments import hide_secrets, prepare_arguments
from src.cli.help import show_help
from src.cli.sweep_jobs import explain_failed_jobs
from src.console import escape_log_records, escape_unencodable, say
from src.errors import InputError, describe_disk_error, find_disk_error, shortened
from src.io import printable
from src.processes import at_work, leave, received_signal
from src.renamed_keys import (
    RENAMED_KEYS,
    check_renamed_keys,
    describe_renamed,
    find_file,
    find_renamed,
)

CONFIG_DIRECTORY = Path(__file__).resolve().parents[2] / "conf"
LONGEST_NAME = 60  # characters of a folder that is named after a file


def register_resolvers() -> None:
    """Register the resolvers that the YAML files use; calling it twice does nothing.

    ``${tuple:1,2}``: a Python tuple, which YAML lacks and some mmcv layers want.
    ``${wandb_offline:}``: whether the environment has no key of W&B.
    ``${short_hash:text}``, ``${name_of_files:a,b}``, ``${name_of_prediction:a,b}``: see the
    functions; null is no file.
    """
    for name, resolver in (
        ("tuple", lambda *values: tuple(values)),
        ("wandb_offline", lambda: not os.environ.get("WANDB_API_KEY")),
        ("short_hash", short_hash),
        ("name_of_files", name_of_files),
        ("name_of_prediction", name_of_prediction),
    ):
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def short_hash(text: str) -> str:
    """Return eight hexadecimal digits that stand for a text, as in a folder's name."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def name_of_prediction(image: str | None, split: str) -> str:
    """Return the end of the name of a store's folder: of the image, or of the split without one."""
    return split if image is None else name_of_files(image)


def name_of_files(first: str, *others: str | None) -> str:
    """Return the name of a folder for results of these files: the first one's, and a hash of all.

    Characters that a command line has to quote become ``_``.
    """
    places = [None if path is None else str(Path(path).resolve()) for path in (first, *others)]
    name = re.sub(r"[^\w.-]+", "_", Path(first).resolve().name, flags=re.ASCII)
    return f"{name[:LONGEST_NAME]}-{short_hash(repr(places))}"


def check_missing(config: DictConfig) -> None:
    """Refuse a config with mandatory values left open."""
    if missing := " ".join(f"{key}=..." for key in sorted(OmegaConf.missing_keys(config))):
        raise InputError(
            f"these values have no default and must be given: {missing} (--help explains each)"
        )


def to_plain(config: Any) -> Any:
    """Turn a config node into plain dicts, lists and values, with interpolations resolved."""
    if isinstance(config, DictConfig | ListConfig):
        return OmegaConf.to_container(config, resolve=True)
    return config


def instantiate_all(group: Mapping[Any, Any] | None) -> list[Any]:
    """Build every object of a group of named objects, such as callbacks; null is skipped."""
    return [hydra.utils.instantiate(node) for node in (group or {}).values() if node is not None]


def overridden_keys() -> set[str]:
    """Return the keys and groups that the command line gives a value; empty outside a command."""
    if not HydraConfig.initialized():
        return set()
    overrides = HydraConfig.get().overrides.task
    return {override.partition("=")[0].lstrip("+~") for override in overrides}


def compose_default(config_name: str) -> DictConfig:
    """Compose the configuration of a command without arguments; in a running command, too."""
    if GlobalHydra.instance().is_initialized():
        return hydra.compose(config_name)
    with hydra.initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        return hydra.compose(config_name)


def config_directories(arguments: Sequence[str]) -> list[Path]:
    """Return the folders of the configuration: those that the command line adds, then ``conf``."""
    line = "\n".join(arguments)
    added = re.findall(r"(?:^(?:-cd|--config-dir)[=\n]|file://)([^,\]'\"\n]+)", line, re.MULTILINE)
    return [*map(Path, added), CONFIG_DIRECTORY]


def users_mistake(error: BaseException | None) -> InputError | None:
    """Find the ``InputError`` behind an exception; Hydra wraps what a constructor raises."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def one_line(mistake: InputError) -> str:
    """Return the message alone, without the traceback that a loader's worker puts around it."""
    message = str(mistake.args[0])  # of any length: the traceback stands before it
    return shortened(
        message.rpartition(f"{InputError.__module__}.{InputError.__name__}: ")[2]
    ).strip()


def unknown_argument(error: BaseException, config: DictConfig) -> InputError | None:
    """Find the key of the config that a constructor does not know, behind Hydra's exception."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error.__cause__))
    parent = re.search(r"full_key: (\S+)", str(error))
    if found is None or parent is None:
        return None
    key, node = found[1], OmegaConf.select(config, parent[1])
    if not isinstance(node, DictConfig) or key not in node:
        return None
    others = [str(other) for other in node if other != key and not str(other).startswith("_")]
    return InputError(f"unknown key {parent[1]}.{key}{_near(key, others, prefix=f'{parent[1]}.')}")


def composition_mistake(error: Exception, config_name: str) -> InputError:
    """Return the error that says why the command line makes no config."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        *others, last = error.options
        legal = f"{', '.join(others)} or {last}" if others else last
        return InputError(f"{group} must be {legal}, got {printable(name)}")
    found = re.match(r"Could not override '([^']+)'", str(error))
    if found is None or "No match in the defaults list" in str(error):
        return InputError(" ".join(str(error).split()))
    config = compose_default(config_name)
    old = find_renamed(found[1])
    if old is not None and ("." in old or RENAMED_KEYS[old] in set(config)):
        return describe_renamed(old, find_file(old, config_directories(sys.argv)))
    return InputError(f"unknown key {found[1]}{_near(found[1], _keys(config))}")


def _keys(node: DictConfig, prefix: str = "") -> Iterable[str]:
    for key in map(str, node):
        yield prefix + key
        if isinstance(value := node._get_node(key), DictConfig):
            yield from _keys(value, f"{prefix}{key}.")


def _near(key: str, others: Iterable[str], *, prefix: str = "") -> str:
    near = difflib.get_close_matches(key, list(others), n=3)
    if not near:
        return " (--help lists the configuration)"
    return f"; near ones: {', '.join(prefix + name for name in near)}"


def find_mode(
    hydra: Hydra,
    config_name: str | None,
    overrides: list[str],
    _compose: Callable[[Hydra, str | None, list[str]], Any] = Hydra.get_mode,
) -> Any:
    """Return the mode that a configuration asks for, None for none; in place of Hydra's method.

    That composes everything, which takes as long as the rest of a start. Only a file that the
    command line chooses (``+sweep=thresholds``, ``--config-name=mine``), or ``hydra.mode``, can ask
    for a multirun.
    """
    is_own = (CONFIG_DIRECTORY / f"{config_name}.yaml").is_file()
    if is_own and not any(map(_may_set_mode, overrides)):
        return None
    return _compose(hydra, config_name, overrides)


def _may_set_mode(override: str) -> bool:
    key, _, value = override.lstrip("+~").partition("=")
    folder = CONFIG_DIRECTORY / key.partition("@")[0]
    if key.startswith("hydra."):
        return key in ("hydra.mode", "hydra.searchpath")  # the second may add files that set it
    if "hydra" in key or not folder.is_dir():
        return "hydra" in key
    file = folder / f"{value}.yaml"
    return not file.is_file() or re.search(r"\b(mode|sweep)\b", file.read_text("utf-8")) is not None


def _end_by(error: Exception, config: DictConfig | None = None) -> None:
    """End the program with one line if the exception is no bug of it."""
    if isinstance(error, BrokenPipeError):  # the reader of our output ended, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        sys.exit(128 + signal.SIGPIPE)
    if received_signal() is not None:  # what a library makes of Ctrl-C, or of a worker's end
        leave()
    mistake = users_mistake(error) or explain_failed_jobs(error)
    if mistake is None and config is not None and isinstance(error, InstantiationException):
        mistake = unknown_argument(error, config)
    if mistake is None and isinstance(error, InterpolationResolutionError):
        mistake = _unresolved(error)
    if mistake is None and (disk_error := find_disk_error(error)) is not None:
        mistake = InputError(describe_disk_error(disk_error))
    if mistake is not None:
        _fail(mistake)


def _unresolved(error: InterpolationResolutionError) -> InputError:
    """Return the error for ``${`` in a path, or in the name of the working directory."""
    if str(error.full_key).startswith("hydra.runtime"):
        return InputError(
            f"the working directory {Path.cwd()} has ${{ in its name, which begins the name of a "
            "key in every configuration: start the command in another one "
            "and give paths in this one as \\${"
        )
    reason = " ".join(str(error).partition("\n")[0].split())
    return InputError(
        f"{error.full_key}: {reason} (${{ begins the name of another key; in a path it is written "
        "\\${)"
    )


def _fail(mistake: InputError) -> NoReturn:
    with contextlib.suppress(OSError):  # a full disk's, where stdout is a file
        sys.stdout.flush()
    say("error: " + one_line(mistake).replace("\n", "\\n"))
    sys.exit(2)


def entry_point(
    config_name: str,
    renamed: Mapping[str, str] | None = None,
    lock: Callable[[DictConfig], AbstractContextManager[None]] | None = None,
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Make a Hydra program of a function that takes the composed config.

    Args:
        config_name: The file in ``conf/`` that it starts from.
        renamed: Keys by their alias on the command line. Hydra takes ``sweep=...`` for a choice of
            the group of that name, whatever the config has.
        lock: Returns the lock of the folder or file that the function writes.

    A user's mistake (``InputError``, or a command line that Hydra makes no config of) and a disk
    that is full or not writable end the program with one line on stderr and exit code 2, Ctrl-C and
    SIGTERM with one line and exit code 130 or 143; anything else is a bug and keeps its traceback.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        is_composed = False

        @functools.wraps(function)
        def run(config: DictConfig) -> Any:
            nonlocal is_composed
            is_composed = True
            escape_log_records()
            try:
                check_renamed_keys(
                    OmegaConf.to_container(config, resolve=False),
                    config_directories(sys.argv),
                    is_own=lambda key: key in set(compose_default(config_name)),
                )
                check_missing(config)
                if "max_image_megapixels" in config:
                    # numpy, OpenCV and Arrow, which --help and typos do without
                    from src.annotations.image_files import set_max_megapixels

                    set_max_megapixels(config.max_image_megapixels)
                with lock(config) if lock is not None else contextlib.nullcontext():
                    return function(config)
            except Exception as error:
                _end_by(error, config)
                raise

        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        program: Callable[[], Any] = hydra.main(
            version_base="1.3", config_path=str(CONFIG_DIRECTORY), config_name=config_name
        )(run)

        @functools.wraps(function)
        def main() -> Any:
            nonlocal is_composed
            is_composed = False
            # Hydra prints an exception on several lines and exits, unless told to let it through.
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")
            logging.raiseExceptions = False  # a full disk is said once, not by every log line
            escape_unencodable()
            try:
                with at_work():
                    sys.argv[1:] = prepare_arguments(
                        hide_secrets(sys.argv[1:]),
                        renamed,
                        CONFIG_DIRECTORY,
                        # a set, for a key that is ??? is in no DictConfig
                        is_key=lambda key: key in set(compose_default(config_name)),
                    )
                    return program()
            except Exception as error:
                # Before the configuration is composed there is nothing but the command line. A
                # later job of a sweep may have values that only together make none.
                kinds = ConfigCompositionException if is_composed else HydraException | ValueError
                if isinstance(error, kinds):
                    _fail(composition_mistake(error, config_name))
                _end_by(error)  # of Hydra's own work around the function
                raise

        return main

    return decorate


Hydra.app_help = show_help  # type: ignore[assignment]
Hydra.get_mode = find_mode  # type: ignore[assignment]
# A job that a launcher runs in another process imports this module and calls no entry point.
register_resolvers()
