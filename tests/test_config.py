"""What every entry point shares: errors as one line, missing values, resolvers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from src.cli.entry_point import (
    check_missing,
    instantiate_all,
    name_of_files,
    register_resolvers,
    short_hash,
    to_plain,
    users_mistake,
)
from src.errors import InputError


def refuse(value: int) -> None:
    raise InputError(f"value={value}: 0 is legal")


def test_a_users_mistake_is_found_behind_hydra() -> None:
    with pytest.raises(Exception, match="Error in call to target") as caught:
        instantiate({"_target_": "tests.test_config.refuse", "value": 3})
    assert str(users_mistake(caught.value)) == "value=3: 0 is legal"


def test_a_bug_is_no_users_mistake() -> None:
    assert users_mistake(KeyError("x")) is None


def test_missing_values_are_all_named() -> None:
    config = OmegaConf.create({"input": "???", "inner": {"output": "???", "seed": 1}})
    with pytest.raises(
        InputError, match=r"must be given: inner\.output=\.\.\. input=\.\.\. \(--help"
    ):
        check_missing(config)


def test_a_null_entry_of_a_group_is_left_out() -> None:
    group = OmegaConf.create({"a": {"_target_": "builtins.dict", "x": 1}, "b": None})
    assert instantiate_all(group) == [{"x": 1}]
    assert instantiate_all(None) == []


def test_tuple_resolver_gives_a_tuple() -> None:
    register_resolvers()
    assert to_plain(OmegaConf.create({"size": "${tuple:1,2}"})) == {"size": (1, 2)}


def test_command_line_ends_with_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "src.split", f"annotations={tmp_path}/no.csv", "output=x.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "no.csv" in result.stderr
    assert "Traceback" not in result.stderr


def test_hashes_of_texts_are_short_and_differ() -> None:
    texts = ["", "a=0.3,b=[1,2]", "a/b", "a_b", "x" * 300, "é" * 200]
    hashes = {short_hash(text) for text in texts}
    assert len(hashes) == len(texts)
    assert all(re.fullmatch(r"[0-9a-f]{8}", name) for name in hashes)


def test_names_of_files_tell_places_apart(tmp_path: Path) -> None:
    name = name_of_files("runs/a/predictions", "t.csv", None)
    assert re.fullmatch(r"predictions-[0-9a-f]{8}", name)
    assert name == name_of_files(str(Path("runs/a/predictions").resolve()), "t.csv", None)
    others = [("runs/b/predictions", "t.csv"), ("runs/a/predictions", "u.csv")]
    assert len({name, *(name_of_files(*files, None) for files in others)}) == 3


def test_names_of_files_need_no_quotes() -> None:
    for odd in ("my data #1 = {a,b} [x] 'q'", "${x}", "\u00e9" * 120, "a" * 250):
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,60}-[0-9a-f]{8}", name_of_files(f"runs/{odd}", None))
