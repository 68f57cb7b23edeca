"""Quoted arguments are, after the shell and Hydra's grammar, the values that went in."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from src.quoting import quote, quote_for_hydra, quote_for_shell

# What Hydra's grammar and shells give a meaning, often; sometimes any character but a newline,
# which the grammar does not take, or a surrogate, which is no text.
SIGNS = "/._-:@%+,=;#&!?*|~^ \\'\"`$<>[](){}aZnulltrue0123e"
ANY = st.characters(exclude_categories=("Cs", "Cc"))
TEXTS = st.text(st.one_of(st.sampled_from(SIGNS), st.sampled_from(SIGNS), ANY), min_size=1)
NUMBERS = st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False))
PARSER = OverridesParser.create()


def read_back(key: str, text: str) -> Any:
    """Return the value that Hydra puts into the configuration."""
    (argument,) = shlex.split(text)
    override = PARSER.parse_override(argument)
    assert not override.is_sweep_override()
    return OmegaConf.to_container(OmegaConf.create({key: override.value()}), resolve=True)[key]


@settings(deadline=None)
@given(TEXTS)
@example("2019")
@example("1_000")
@example("+inf")
@example("NULL")
@example("${x}")
@example("\\${x}")
@example("a\\")
@example("\\'\\\"")
@example("été/фото 1")
def test_a_text_is_read_back(text: str) -> None:
    assert read_back("images", quote("images", text)) == text


@settings(deadline=None)
@given(st.lists(st.one_of(TEXTS, NUMBERS, st.booleans(), st.none())))
def test_a_list_is_read_back(values: list[Any]) -> None:
    assert read_back("checkpoint", quote("checkpoint", values)) == values


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 10**6), NUMBERS))
def test_numbers_by_category_are_read_back(values: dict[int, float]) -> None:
    assert read_back("key", quote("key", values)) == values


@pytest.mark.parametrize("value", ["$HOME `x` !x", "a'b", 'a"b', "a\\'b\"c", "a;b & c", "[a]*?"])
def test_a_real_shell_reads_it_so_too(value: str) -> None:
    command = f"printf %s {quote('images', value)}"
    passed = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert PARSER.parse_override(passed.stdout).value() == value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("/tmp/x-1/predictions_validation", "predictions=/tmp/x-1/predictions_validation"),
        ("../a:b@c%d+e,f", "\"predictions='../a:b@c%d+e,f'\""),
        ("C:/data/2019", "predictions=C:/data/2019"),
        ("2019", "\"predictions='2019'\""),
        ("my data", "\"predictions='my data'\""),
        ("a=b", "\"predictions='a=b'\""),
        ("true", "\"predictions='true'\""),
        (["a.ckpt", "b.ckpt"], '"predictions=[a.ckpt,b.ckpt]"'),  # a pattern for zsh
        ("$x", "'predictions='\"'\"'$x'\"'\"''"),
    ],
)
def test_quotes_stand_only_where_they_are_needed(value: Any, written: str) -> None:
    assert quote("predictions", value) == written


def test_a_part_of_an_argument_can_be_quoted() -> None:
    template = "python -m src.predict checkpoint={folder}"
    for folder in ("outputs/sweep/0", "out puts/[0]"):
        words = shlex.split(template.format(folder=quote_for_shell(quote_for_hydra(folder))))
        assert OmegaConf.create({"x": PARSER.parse_override(words[-1]).value()}).x == folder
