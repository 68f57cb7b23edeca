"""Arguments as a person types them: quoted for Hydra and for the shell, where they need it.

Hydra has a grammar of values: https://hydra.cc/docs/advanced/override_grammar/basic. What
``_PLAIN`` matches is the same text in it with and without quotes, and a shell takes it as it is.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from os import PathLike

Value = str | PathLike[str] | bool | int | float | Sequence["Value"] | Mapping[int, "Value"] | None

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+-]+")
_KEYWORDS = frozenset({"null", "true", "false"})


def quote(key: str, value: Value) -> str:
    """Return ``key=value`` for a shell, each text in it literal.

    >>> print(quote("images", "data/train"))
    images=data/train
    >>> print(quote("images", "my data [1]"))
    "images='my data [1]'"
    >>> print(quote("checkpoint", ["a.ckpt", "b c.ckpt"]))
    "checkpoint=[a.ckpt,'b c.ckpt']"
    """
    return quote_for_shell(f"{key}={quote_for_hydra(value)}")


def quote_for_hydra(value: Value) -> str:
    """Return a value as Hydra's grammar has it.

    >>> print(quote_for_hydra({1: 0.5, 2: None}))
    {1:0.5,2:null}
    """
    if isinstance(value, PathLike):
        value = str(value)
    if isinstance(value, str):
        return value if _is_plain(value) else _quoted(value)
    if isinstance(value, Mapping):
        pairs = (f"{key}:{quote_for_hydra(one)}" for key, one in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, Sequence):
        return f"[{','.join(map(quote_for_hydra, value))}]"
    return json.dumps(value)


def quote_for_shell(argument: str) -> str:
    """Return an argument as a POSIX shell has it, in double quotes where they change nothing."""
    plain = shlex.quote(argument)
    return plain if plain == argument or re.search(r'["$`\\!]', argument) else f'"{argument}"'


def _is_plain(text: str) -> bool:
    """Return whether Hydra and a shell read a text as it is, and not as a number or the like."""
    if not _PLAIN.fullmatch(text) or text.lower() in _KEYWORDS:
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def _quoted(text: str) -> str:
    """Return a text in quotes; a backslash counts before one for Hydra, before ${ for OmegaConf."""
    mark = '"' if "'" in text and '"' not in text else "'"
    text = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", text)
    text = re.sub(rf"(\\*){mark}", lambda found: 2 * found[1] + f"\\{mark}", text)
    last = text[len(text.rstrip("\\")) :]  # backslashes before the closing quote
    return f"{mark}{text}{last}{mark}"
