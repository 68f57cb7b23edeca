"""Command-line arguments before Hydra reads them: paths, choices of config groups."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import HydraException

from src.errors import InputError
from src.io import printable
from src.quoting import quote, quote_for_shell
from src.renamed_keys import RENAMED_KEYS, describe_renamed, find_renamed

OPTIONAL_GROUPS = frozenset({"logger"})  # commands run without these


def check_choice(override: Override, config_directory: Path, *, key: str) -> None:
    """Check that an override of a group names one of its configurations, or several in a list.

    Hydra, which knows ``--config-dir`` too, checks that there is one of that name.

    Args:
        override: Any override, of a group or not.
        config_directory: A folder with a folder for each group.
        key: The group as it was typed.

    Raises:
        InputError: It gives null, a number or the like, or removes a group that is needed.
    """
    group = override.key_or_group
    choices = sorted(path.stem for path in (config_directory / group).glob("*.yaml"))
    if not choices and not group.startswith("hydra/"):
        return
    legal = " or ".join(filter(None, [", ".join(choices[:-1]), *choices[-1:]]))
    begin = f"{key} must be {legal or 'the name of a configuration'}"
    if override.is_delete():
        if choices and group not in OPTIONAL_GROUPS:
            raise InputError(f"{begin}; it cannot be left out, got ~{key}")
        return
    value = override.value()
    if override.is_sweep_override() and not isinstance(value, ChoiceSweep):
        return  # of what is there: glob(*)
    if isinstance(value, dict):
        return  # merged into the choice
    way_out = f"; ~{group} is none at all" if group in OPTIONAL_GROUPS else ""
    for one in value.list if isinstance(value, ChoiceSweep) else [value]:
        for name in one if isinstance(one, list) and one else [one]:
            text = name.text if isinstance(name, QuotedString) else name
            if not isinstance(text, str) or not text:
                got = "null" if text is None else str(text).lower() or "an empty one"
                raise InputError(f"{begin}{way_out}, got {printable(got)}")


# The last part of keys that hold one path, in any command; those with a dot are whole keys.
PATH_KEYS = frozenset(
    {
        *("a", "b", "annotations", "cache_dir", "category_map", "checkpoint_dir", "config_dir"),
        *("data_dir", "drawings_dir", "images", "initial_weights", "label_descriptions"),
        *("output", "output_dir", "sample_submission", "session_dir", "skipped_rows", "source"),
        *("split", "split_file", "submission", "sweep_dir", "test_images"),
        *("hydra.run.dir", "hydra.sweep.dir"),
    }
)
# ... or a list of paths.
LISTS_OF_PATHS = frozenset({"checkpoint", "predictions"})


# A value that may hold a password stands in this variable, and a reference to it in its place.
SECRET_KEY, SECRET_VARIABLE = "storage", "INSTANCE_CASCADE_STORAGE"


def hide_secrets(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without the address of a database, which goes to the environment.

    So neither Hydra's messages nor what it writes or prints of a configuration have its password.
    """
    shown = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.lstrip("+") == SECRET_KEY and "://" in value:
            os.environ[SECRET_VARIABLE] = _without_quotes(value)
            argument = f"{key}=${{oc.env:{SECRET_VARIABLE}}}"
        shown.append(argument)
    return shown


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help explains the command)")


def prepare_arguments(
    arguments: Sequence[str],
    renamed: Mapping[str, str] | None = None,
    config_directory: Path | None = None,
    is_key: Callable[[str], bool] = lambda _key: True,
) -> list[str]:
    """Return the arguments of a command line in the form that Hydra takes.

    A leading ``~`` of a value becomes the home folder, a path that looks like a number stays text,
    aliases become keys, and flags may stand anywhere.

    Args:
        arguments: The command line without the program.
        renamed: Keys by their alias on the command line.
        config_directory: See ``check_choice``; None: groups are not checked.
        is_key: Whether the command has a key, the new name of a renamed one.

    Raises:
        InputError: Hydra would not understand an argument, or its key was renamed; the message
            says how to write it.
    """
    flags, overrides = _split(arguments)
    # A grid in a file is a multirun without -m.
    is_multirun = any(flag in ("-m", "--multirun") for flag in flags) or any(
        one.startswith(("+sweep=", "hydra.mode=")) for one in overrides
    )
    prepared = []
    for number, override in enumerate(overrides):
        if "=" not in override and not override.startswith("~"):
            raise InputError(_not_a_pair(override, overrides[number - 1] if number else None))
        typed, equals, value = override.partition("=")
        is_alias = typed in (renamed or {})  # of this command, whatever others renamed
        old = None if is_alias else find_renamed(typed.lstrip("+~"))
        if old is not None and ("." in old or is_key(RENAMED_KEYS[old])) and not is_key(old):
            raise describe_renamed(old, "command line")
        argument = f"{(renamed or {}).get(typed, typed)}{equals}{value}"
        if config_directory is not None and isinstance(parsed := _parse(argument), Override):
            check_choice(parsed, config_directory, key=typed.lstrip("+~"))
        prepared.append(_prepare(override, argument, is_multirun=is_multirun))
    return [*flags, *prepared]


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return Hydra's flags with their values, and the other arguments."""
    parser = get_args_parser()
    parser.__class__ = _Parser
    known, unknown = parser.parse_known_args(list(arguments))
    for argument in unknown:
        if not argument.startswith("-"):
            continue
        pair = printable(argument.lstrip("-"))
        raise InputError(
            f"{printable(argument)}: no such option; keys are written without dashes: "
            f"{pair if '=' in pair else f'{pair}=VALUE'} (--help lists them)"
        )
    overrides = [*known.overrides, *unknown]
    flags = list(arguments)
    for override in overrides:
        flags.remove(override)
    return flags, overrides


def _not_a_pair(argument: str, before: str | None) -> str:
    if argument.lower() in ("help", "h", "?", "usage"):
        return f"{argument}: --help explains the command, its keys and their values"
    line = f"{printable(argument)}: arguments must be KEY=VALUE (--help lists the keys)"
    if before is not None and "=" in before:
        key, _, value = before.partition("=")
        line += f"; if it belongs to the argument before it: {quote(key, f'{value} {argument}')}"
    return line


def _prepare(override: str, argument: str, *, is_multirun: bool) -> str:
    """Return an argument in the form that Hydra takes; ``override`` is as it was typed."""
    typed = override.partition("=")[0]
    key, equals, value = argument.partition("=")
    name = key.lstrip("+~")
    if not equals or (name.startswith("hydra.") and name not in PATH_KEYS):
        return argument
    if not value.strip():
        raise InputError(f"{typed} must have a value, got none ({typed}=null stands for nothing)")
    value = _with_home(value)
    argument = f"{key}={value}"
    is_path = name in PATH_KEYS or name.rpartition(".")[2] in PATH_KEYS
    parsed = _parse(argument)
    if isinstance(parsed, str):
        raise InputError(
            f"{printable(override)}: not legal as it is ({parsed}); a value with such signs is "
            f"quoted: {quote(typed, _without_quotes(value))}"
        )
    if parsed.is_sweep_override() and not is_multirun and "," in value:
        raise InputError(
            f"{printable(override)}: several values, one for each job of a sweep, need -m; one "
            f"value with a comma is quoted: {quote(typed, value)}; a list is "
            f"{quote_for_shell(f'{typed}=[{value}]')}"
        )
    if parsed.is_sweep_override():
        return argument
    content: Any = parsed.value()
    if (is_path or name in LISTS_OF_PATHS) and isinstance(content, bool | int | float):
        return f"{key}='{value}'"  # a folder named 2019
    if is_path and isinstance(content, list | dict):
        raise InputError(
            f"{typed} must be one path, got {printable(value)}; a path with such signs is quoted: "
            f"{quote(typed, value)}"
        )
    return argument


def _parse(argument: str) -> Override | str:
    """Return the override, or the reason why it is none."""
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException as error:
        return " ".join(str(error).partition("\nSee https")[0].split())


def _with_home(value: str) -> str:
    """Replace ``~`` and ``~/`` at the beginning of a value, quoted or in a list, by the home."""
    begins = re.compile(r"(^['\"]?|^\[\s*['\"]?|(?<=,)\s*['\"]?)~(?=/|$)")
    if not begins.search(value):
        return value
    parts = [value] if value[0] in "'\"[" else value.split(",")
    return ",".join(begins.sub(lambda found: found[1] + str(Path.home()), part) for part in parts)


def _without_quotes(value: str) -> str:
    """Remove the quotes around all of a value."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] in "'\"" else value
