"""Damage to files that are valid otherwise: to their values, their structure, or their bytes.

All choices come from a ``random.Random``. Hypothesis gives one whose choices it shrinks, and
``BytesRandom`` takes them from the bytes of a fuzzer that looks at coverage.
"""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

# Numbers as text, as JSON, CSV and YAML have them.
NUMBERS = (
    *("0", "-1", "1", "2", "46", "0.5", "-0", "-0.0", "1e400", "-1e400", "1e-400", "NaN", "nan"),
    *("Infinity", "-Infinity", "inf", ".inf", "2147483647", "2147483648", "-2147483649"),
    *("4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551616"),
    *("1" * 400, "9" * 5000, "0x10", "1_000", "1e9", "1.5", "\u0663", "\uff11", "0" * 3000 + "7"),
)
TEXTS = (
    *("", " ", "null", "true", "\\u0000", "\\ud800", "../../etc/passwd", "/etc/passwd", "a\\nb"),
    *("x" * 20_000, "1 1 " * 3000, "${oc.env:HOME}", "=1+1", "<b>", "\\u001b[31m", "1 -1", "3 0"),
    *("1 99999999999999999999", "1 2 2 2", "5 5 1 1", "oooooooo", "~" * 300, "PPPPPP" * 200),
)
JSON_VALUES = (
    *(f'"{text}"' for text in TEXTS),
    *NUMBERS[:27],
    *("[]", "{}", "[[]]", "null", "true", "false", '{"a": 1}', "[1]", '["a"]', "[1e400, 2]"),
    *("[1, 2, 3]", "[-1, -1]", "[99999999, 99999999]", "[0, 0]", "[2147483648, 2147483648]"),
    *("[" * 300 + "]" * 300, "[" * 30_000 + "]" * 30_000, '{"a":' * 5000 + "1" + "}" * 5000),
    *('{"size": [5, 5], "counts": [25]}', '{"size": [9e9, 9e9], "counts": "1"}'),
    *("[[1, 1, 2, 2, 3, 1]]", "[[0, 0, 1e9, 0, 0, 1e9]]", "[[1e308, -1e308, 0, 0, 5, 5]]"),
    *("[[1, 2]]", "[[NaN, 1, 2, 3, 4, 5]]"),
)
WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
_MARK = "@@%d@@"


class BytesRandom(random.Random):
    """Takes its choices from bytes; where they end, every choice is the first."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data, self._place = data, 0

    def getrandbits(self, k: int, /) -> int:
        """Return the number of the next bytes."""
        size = (k + 7) // 8
        taken = self._data[self._place : self._place + size]
        self._place += size
        return int.from_bytes(taken, "little") & ((1 << k) - 1)

    def random(self) -> float:
        """Return a number from 0 to 1."""
        return self.getrandbits(32) / 2**32


def mutate_bytes(content: bytes, choices: random.Random) -> bytes:
    """Flip, insert, delete, repeat, overwrite or cut bytes."""
    data = bytearray(content)
    place = choices.randrange(len(data) + 1)
    length = min(choices.choice((1, 2, 4, 8, 64, 4096)), len(data) - place)
    kind = choices.randrange(7)
    if kind == 0 and length:
        data[place] ^= 1 << choices.randrange(8)
    elif kind == 1:
        del data[place : place + length]
    elif kind == 2:
        data[place:place] = data[place : place + length] * choices.choice((1, 2, 200))
    elif kind == 3:
        del data[place:]
    elif kind == 4:
        word = choices.choice(WORDS)
        data[place : place + 4] = struct.pack(choices.choice(("<I", ">I")), word)
    elif kind == 5:
        data[place : place + 8] = struct.pack("<q", choices.choice((-1, 2**62, 2**40, 0)))
    else:
        data[place:place] = choices.choice(
            (b"\0", b"\n", b"\r", b'"', b"\xff\xfe", b"\xef\xbb\xbf")
        )
    return bytes(data)


def mutate_json(content: bytes, choices: random.Random) -> bytes:
    """Replace, remove, repeat or rename values of a JSON file; some are no legal JSON."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):  # damaged before
        return mutate_bytes(content, choices)
    if not isinstance(tree, dict | list) or not tree:
        return mutate_bytes(content, choices)
    raw: list[str] = []
    for _ in range(choices.choice((1, 1, 2, 3))):
        tree = _mutate_tree(tree, choices, raw)
    text = json.dumps(tree)
    for number, value in enumerate(raw):
        text = text.replace(f'"{_MARK % number}"', value)
    return text.encode()


def _mutate_tree(tree: Any, choices: random.Random, raw: list[str]) -> Any:
    if not (places := list(_places(tree))):
        return tree
    parent, key = choices.choice(places)
    value = parent[key]
    kind = choices.randrange(8)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(value))
    elif kind == 2 and isinstance(parent, dict):
        parent[choices.choice((f"{key}2", "", "__class__", "image_id", key.upper()))] = value
    elif kind == 3:
        parent[key] = [value]
    elif kind == 4:
        other, other_key = choices.choice(places)
        parent[key] = copy.deepcopy(other.get(other_key) if isinstance(other, dict) else value)
    else:
        parent[key] = _MARK % len(raw)
        raw.append(choices.choice(JSON_VALUES))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container with a key of it; the whole tree as the value of a list of one."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def mutate_csv(content: bytes, choices: random.Random) -> bytes:
    """Change cells, rows, columns, quotes and line ends of a CSV file."""
    rows = [line.split(",") for line in content.decode(errors="replace").splitlines()] or [[""]]
    for _ in range(choices.choice((1, 1, 2, 3))):
        number = choices.randrange(len(rows))
        row = rows[number]
        column = choices.randrange(len(row) or 1)
        kind = choices.randrange(7)
        if kind == 0 and row:
            del row[column]
        elif kind == 1:
            row.insert(column, choices.choice(NUMBERS))
        elif kind == 2:
            rows.insert(number, list(row))
        elif kind == 3 and len(rows) > 1:
            del rows[number]
        elif row:
            row[column] = _cell(row[column], choices)
    end = choices.choice(("\n", "\n", "\r\n", "\r", "\n\n", ""))
    return end.join(",".join(row) for row in rows).encode(errors="surrogatepass")


def _cell(cell: str, choices: random.Random) -> str:
    words = cell.split(" ")
    kind = choices.randrange(5)
    if kind == 0:
        return choices.choice(NUMBERS)
    if kind == 1:
        return choices.choice(TEXTS).encode().decode("unicode_escape")
    if kind == 2:
        return choices.choice(
            (f'"{cell}"', f'"{cell}', f'{cell}"', f'"{cell}\n{cell}"', f" {cell}")
        )
    if kind == 3:
        return " ".join([*words, *words])
    words[choices.randrange(len(words))] = choices.choice(NUMBERS)
    return " ".join(words)


YAML_LINES = (
    *("defaults: [winner]", "defaults: [default, x]", "defaults: [../secret]", "defaults: 3"),
    *("? [1, 2]\n: 3", "<<: {a: 1}", "a: &a [*a]", "a: *nothing", "!!python/object:os.system {}"),
    *(
        "x: !!binary aGk=",
        "x: 2001-01-01",
        "- 1",
        "\tx: 1",
        "x: 'a",
        "1: 2",
        "null: 1",
        "---",
        "%T",
    ),
    # each anchor holds the one before nine times
    "\n".join(
        ["score_threshold: &a [x]"]
        + [
            f"{key}: &{key} [{','.join([f'*{before}'] * 9)}]"
            for before, key in zip("abcdefgh", "bcdefghi", strict=True)
        ]
        + ["nms_kind: *i"]
    ),
    "defaults: " + "[" * 2000 + "]" * 2000,
)


def mutate_yaml(content: bytes, choices: random.Random) -> bytes:
    """Change values and lines of a YAML file of keys and values."""
    lines = content.decode(errors="replace").splitlines() or [""]
    for _ in range(choices.choice((1, 1, 2))):
        number = choices.randrange(len(lines) or 1)
        key, _, _value = lines[number].partition(": ")
        kind = choices.randrange(5)
        if kind == 0:
            lines.insert(number, choices.choice(YAML_LINES))
        elif kind == 1:
            lines[number] = f"{key}: {choices.choice(NUMBERS)}"
        elif kind == 2:
            lines[number] = f"{key}: {choices.choice(JSON_VALUES)}"
        elif kind == 3:
            lines[number] = choices.choice(
                (f"  {lines[number]}", f"{key}", f"{key}: [", f"{key}2: 1")
            )
        else:
            lines[number:] = choices.choice(YAML_LINES).splitlines()
    return "\n".join(lines).encode()


def mutate_safetensors(content: bytes, choices: random.Random) -> bytes:
    """Change the header of a safetensors file, with a length that agrees or does not."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = mutate_json(content[8:end], choices)
    if choices.randrange(3) == 0:
        header += b" " * (-len(header) % 8)
    length = choices.choice((len(header), len(header), len(header), len(header) + 1, 2**63, 0))
    return length.to_bytes(8, "little") + header + content[end:]


def either(*mutations: Mutation) -> Mutation:
    """Return a mutation that is one of some."""

    def mutate(content: bytes, choices: random.Random) -> bytes:
        return choices.choice(mutations)(content, choices)

    return mutate
