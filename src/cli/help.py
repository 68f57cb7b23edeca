"""``--help``: the composed configuration with the comments of its YAML files.

In place of Hydra's own, which shows no comments, and takes a second to list the groups.
"""

from __future__ import annotations

import re
import string
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf._utils import get_omega_conf_dumper

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Key = tuple[str, ...]


@dataclass
class Comments:
    """Comments of YAML files, by the key that they are about."""

    above: dict[Key, list[str]] = field(default_factory=dict)
    beside: dict[Key, str] = field(default_factory=dict)

    def read(self, text: str, package: Key) -> None:
        """Take the comments of a file whose keys are put below ``package``.

        Of two files the later one counts, like its values. The comment at the top of a file is
        about all of it.
        """
        lines = text.splitlines()
        top = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
        if package and (head := _block(lines, end=top, indent="")):
            self.above[package] = head
        for key, first, last in _places(text):
            line = lines[first]
            indent = line[: len(line) - len(line.lstrip())]
            block = _block(lines, end=first, indent=indent) if first > top else []
            if block:
                self.above[package + key] = block
            if found := re.search(r"\s#\s?(.*)$", _after_value(lines, first, last)):
                self.beside[package + key] = found[1]


def show_help(
    hydra: Hydra,
    config_name: str | None,
    args_parser: ArgumentParser,  # noqa: ARG001
    args: Any,
) -> None:
    """Print the help of a command; takes the place of ``Hydra.app_help``."""
    config = hydra.compose_config(
        config_name=config_name,
        overrides=args.overrides,
        run_mode=RunMode.RUN,
        with_log_configuration=True,
    )
    HydraConfig.instance().set_config(config)
    places = hydra.config_loader.get_search_path().get_path()
    paths = [(one.path or "://").removeprefix("file://") for one in places]
    folders = [Path(path) for path in paths if "://" not in path]
    comments = Comments()
    defaults = hydra.config_loader.compute_defaults_list(
        config_name=config_name, overrides=args.overrides, run_mode=RunMode.RUN
    )
    for default in defaults.defaults:
        package = tuple(filter(None, (default.package or "").split(".")))
        if default.config_path is None or package[:1] == ("hydra",):
            continue
        files = [folder / f"{default.config_path}.yaml" for folder in folders]
        if file := next((file for file in files if file.is_file()), None):
            comments.read(file.read_text("utf-8"), () if package == ("_global_",) else package)
    shown = hydra.get_sanitized_cfg(config.copy(), "job")
    template = string.Template(config.hydra.help.template)
    text = template.safe_substitute(
        CONFIG=annotate(_dump(shown, resolve=args.resolve), comments),
        APP_CONFIG_GROUPS=describe_groups(folders),
    )
    print(text)


def annotate(text: str, comments: Comments) -> str:
    """Return YAML with a comment above, and one at the end of, the line of its key."""
    lines = text.splitlines()
    for key, first, _last in _places(text):
        line = lines[first]
        indent = line[: len(line) - len(line.lstrip())]
        if key in comments.beside:
            line += f"  # {comments.beside[key]}"
        above = [f"{indent}# {part}".rstrip() for part in comments.above.get(key, ())]
        lines[first] = "\n".join([*above, line])
    return "\n".join(lines) + "\n"


def describe_groups(folders: list[Path]) -> str:
    """Return a line for each group with its choices, without Hydra's own groups."""
    choices: dict[str, set[str]] = {}
    for folder in folders:
        for path in folder.rglob("*.yaml"):
            group = path.parent.relative_to(folder).as_posix()
            if group != "." and group.partition("/")[0] != "hydra":
                choices.setdefault(group, set()).add(path.stem)
    lines = [f"{group}: {', '.join(sorted(names))}\n" for group, names in sorted(choices.items())]
    return "".join(lines)


def _dump(config: Any, *, resolve: bool) -> str:
    """Return a configuration as YAML, lists of plain values on one line."""

    class Dumper(get_omega_conf_dumper()):  # type: ignore[misc]
        pass

    def represent(dumper: yaml.Dumper, values: list[Any]) -> yaml.Node:
        is_plain = not any(isinstance(value, list | dict) for value in values)
        return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=is_plain)

    Dumper.add_representer(list, represent)
    plain = OmegaConf.to_container(config, resolve=resolve)
    text: str = yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=88)
    return text


def _places(text: str) -> list[tuple[Key, int, int]]:
    """Return each key of a YAML mapping with the first and last line of it and its plain value."""

    def walk(node: yaml.Node, prefix: Key) -> Iterator[tuple[Key, int, int]]:
        if not isinstance(node, yaml.MappingNode):
            return
        for name, value in node.value:
            key, line = (*prefix, str(name.value)), name.start_mark.line
            is_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
            yield key, line, line if is_block else value.end_mark.line
            if is_block:
                yield from walk(value, key)

    root = yaml.compose(text, Loader=_LOADER)
    return [] if root is None else list(walk(root, ()))


def _block(lines: list[str], *, end: int, indent: str) -> list[str]:
    """Return the comment that stands right above a line, with this indentation."""
    first = end
    while first > 0 and lines[first - 1].startswith(f"{indent}#"):
        first -= 1
    block = [line.removeprefix(f"{indent}#").removeprefix(" ") for line in lines[first:end]]
    return [line for line in block if not line.startswith("@package")]


def _after_value(lines: list[str], first: int, last: int) -> str:
    """Return the end of a key's line, where a comment may stand: without texts in quotes."""
    line = lines[last] if last < len(lines) else lines[first]
    return re.sub(r"'[^']*'|\"[^\"]*\"", "''", line)
