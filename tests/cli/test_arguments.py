"""The command line before Hydra: hints how to quote, `~`, what is other than it looks."""

from __future__ import annotations

import re
import shlex

import pytest

from src.cli.arguments import PATH_KEYS, prepare_arguments
from src.cli.entry_point import CONFIG_DIRECTORY
from src.errors import InputError
from src.quoting import quote
from tests.helpers.configs import FILES

STRANGE = [
    "a[b]",
    "a=b",
    "a#b",
    "a'b",
    'a"b',
    "фото",
    "é",
    "a(b)",
    "{a}",
    "a;b",
    "a&b",
    "!x",
    "a\\'b\"c",
    "my data #1 = {a,b} [x] 'q'",
    "$HOME `x`",
]


@pytest.mark.parametrize("value", [*STRANGE, "[x]", "a,b"])
def test_the_message_has_the_argument_as_it_has_to_be_typed(value: str) -> None:
    with pytest.raises(InputError, match=r"^images[= ]") as caught:
        prepare_arguments([f"images={value}"])
    assert f"quoted: {quote('images', value)}" in str(caught.value)
    assert "\n" not in str(caught.value)
    (passed,) = shlex.split(quote("images", value))
    assert prepare_arguments([passed]) == [passed]


@pytest.mark.parametrize(
    ("given", "prepared"),
    [
        ("images=~/a", "images=HOME/a"),
        ("images=~", "images=HOME"),
        ("images='~/a b'", "images='HOME/a b'"),
        ("checkpoint=[~/a.ckpt, '~/b.ckpt']", "checkpoint=[HOME/a.ckpt, 'HOME/b.ckpt']"),
        ("images=a~/b", None),
        ("images=2019", "images='2019'"),
        ("datamodule.test_images=1e5", "datamodule.test_images='1e5'"),
        ("seed=2019", "seed=2019"),
        ("images=null", "images=null"),
        ("images=my data", "images=my data"),
        ("~logger", "~logger"),
        ("+experiment=own", "+experiment=own"),
        ("+sweep=thresholds", "+sweep=thresholds"),
    ],
)
def test_values_are_prepared(
    given: str, prepared: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    if prepared is None:
        with pytest.raises(InputError, match="quoted"):
            prepare_arguments([given])
    else:
        assert prepare_arguments([given]) == [prepared.replace("HOME", "/home/me")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["help"], "help: --help explains the command"),
        (["--submission=x.csv"], r"keys are written without dashes: submission=x\.csv \(--help"),
        (["--submission"], "keys are written without dashes: submission=VALUE"),
        (["output="], r"output must have a value, got none \(output=null"),
        (["images=my", "data"], r"data: arguments must be KEY=VALUE .* \"images='my data'\""),
        (["--cfg"], r"argument --cfg/-c: expected one argument"),
        (["k=a,b"], r"k=a,b: several values, one for each job of a sweep, need -m"),
        (["x\x1b[31m"], r"x\\x1b\[31m: arguments must be KEY=VALUE"),
    ],
)
def test_what_is_no_argument_is_explained(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_arguments(given)


# A user's own files in conf/ are options, too.
OPTIMIZERS = r"optimizer must be adamw(, | or )sgd[\w, ]*"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "logger=null",
            r"^logger must be default(, | or )wandb[\w, ]*; ~logger is none at all, got null$",
        ),
        ("logger=", r"^logger must be .*, got an empty one$"),
        ("logger=''", r"^logger must be .*, got an empty one$"),
        ("logger=[]", r"^logger must be .*, got \[\]$"),
        ("logger=[wandb,null]", r"^logger must be .*, got null$"),
        ("logger=wandb,null", r"^logger must be .*, got null$"),
        ("optimizer=null", f"^{OPTIMIZERS}, got null$"),
        ("optimizer=false", f"^{OPTIMIZERS}, got false$"),
        ("~optimizer", f"^{OPTIMIZERS}; it cannot be left out, got ~optimizer$"),
        ("callbacks=null", r"^callbacks must be default\b.*\bema\b.*, got null$"),
        (
            "postprocess@winner=3",
            r"^postprocess@winner must be default\b.*\bwinner\b.*, got 3$",
        ),
        ("hydra/sweeper=null", r"^hydra/sweeper must be the name of a configuration, got null$"),
        ("winner=null", r"^winner must be default\b.*\bwinner\b.*, got null$"),
    ],
)
def test_a_group_takes_names_of_its_configurations(given: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_arguments([given, "-m"], {"winner": "postprocess@winner"}, CONFIG_DIRECTORY)


@pytest.mark.parametrize(
    "given",
    [
        *("logger=wandb", "logger=[wandb]", "logger='wandb'", "logger=wandb,default"),
        *("logger=glob(*)", "~logger", "~callbacks.progress", "callbacks.progress=null"),
        *("trainer={max_epochs: 3}", "k=null", "~hydra/sweeper"),
    ],
)
def test_other_choices_are_left_to_hydra(given: str) -> None:
    assert prepare_arguments(["-m", given], config_directory=CONFIG_DIRECTORY) == ["-m", given]


def test_flags_may_stand_anywhere_and_sweeps_keep_their_commas() -> None:
    assert prepare_arguments(["k=1,2", "-m", "images=b"]) == ["-m", "k=1,2", "images=b"]
    assert prepare_arguments(["--cfg", "job", "k=1"]) == ["--cfg", "job", "k=1"]
    grid = ["+sweep=thresholds", "k=1,2"]
    assert prepare_arguments(grid) == grid
    assert prepare_arguments(["sweep=a"], {"sweep": "sweep_dir"}) == ["sweep_dir=a"]


def test_every_key_of_a_path_is_one_of_some_command() -> None:
    text = "\n".join((CONFIG_DIRECTORY / path).read_text() for path in FILES)
    unknown = [key for key in PATH_KEYS if not re.search(rf"\b{key.rpartition('.')[2]}\b *:", text)]
    assert unknown == []
