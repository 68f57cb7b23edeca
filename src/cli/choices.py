"""Choices of the config's groups on the command line: null or a number is none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString

from src.errors import InputError
from src.io import printable

OPTIONAL_GROUPS = frozenset({"logger"})  # what commands can do without


def check_choice(override: Override, config_directory: Path, *, key: str) -> None:
    """Check that an override of a group names one of its configurations, or several in a list.

    Whether there is one of that name is left to Hydra, which knows ``--config-dir``, too.

    Args:
        override: Any override, of a group or not.
        config_directory: Whose folders are the groups.
        key: How the group was typed.

    Raises:
        InputError: It gives null, a number or the like, or leaves out a group that is needed.
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
            if not isinstance(name, str | QuotedString) or not _text(name):
                raise InputError(f"{begin}{way_out}, got {_shown(name)}")


def _text(name: str | QuotedString) -> str:
    return name.text if isinstance(name, QuotedString) else name


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return printable(value) or "an empty one"
