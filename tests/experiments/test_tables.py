"""Tables of the ladder: words from intervals, rows, and what stands between markers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.photographs import RECIPES
from experiments.rungs import FOLDERS, LADDER, Sizes
from experiments.tables import (
    Conditions,
    Measured,
    command_block,
    describe,
    leaderboard_gain,
    rewrite,
    table,
)
from src.errors import InputError
from src.metrics.intervals import Interval, PairedInterval, paired_bootstrap_interval

GOLDEN = Path(__file__).parents[1] / "golden" / "ladder_table.md"
CONDITIONS = Conditions(
    Sizes(230, 30, 120, 500), minutes=24.4, machine="2 cores (x86_64)", averaging="per_class"
)
FIGURES = {  # score, gain, its interval, probability
    "S8": (0.1, None),
    "S9": (0.25, (0.15, 0.125, 0.1755, 1.0)),
    "S10": (0.24, (-0.01, -0.02, -0.0001, 0.021)),
    "S11": (0.245, (0.005, -0.001, 0.011, 0.94)),
    "S12": (0.244, (-0.001, -0.003, 0.001, 0.16)),
    "S13": (0.244, (0.0, 0.0, 0.0, 0.5)),
    "S14": (0.244, (0.0, -0.002, 0.002, 0.5)),
}


def interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate, low, high, confidence=0.95, resamples=10_000)


def gain(estimate: float, low: float, high: float, probability: float = 0.5) -> PairedInterval:
    return PairedInterval(interval(estimate, low, high), probability)


def measured_ladder() -> list[Measured]:
    commits = {"S10": ("aaaaaaaaaa", "bbbbbbbbbb")}
    return [
        Measured(
            rung=rung,
            score=interval(score, score - 0.03, score + 0.0355),
            gain=None if figures is None else gain(*figures),
            images=120,
            commits=commits.get(rung.name, ("aaaaaaaaaa",)),
        )
        for rung, (score, figures) in zip(LADDER, FIGURES.values(), strict=True)
    ]


def test_table_as_it_was_read_and_found_right() -> None:
    assert table(measured_ladder(), CONDITIONS) + "\n" == GOLDEN.read_text()


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ((0.1, 0.001, 0.2), "a gain: the whole interval is above 0"),
        ((-0.1, -0.2, -0.001), "a loss: the whole interval is below 0"),
        ((0.1, 0.0, 0.2), "no gain that 120 images can show"),
        ((0.1, -0.1, 0.3), "no gain that 120 images can show"),
        ((0.0, -0.1, 0.1), "no gain that 120 images can show"),
        ((-0.1, -0.2, 0.0), "no gain that 120 images can show"),
        ((-0.1, -0.2, 0.1), "no gain that 120 images can show"),
        ((0.0, 0.0, 0.0), "no effect: none of 120 images scores differently"),
    ],
)
def test_words_say_what_the_interval_says(figures: tuple[float, float, float], words: str) -> None:
    assert describe(gain(*figures), images=120) == words


def test_one_image_that_differs_is_not_none() -> None:
    before, after = np.full(120, 0.5), np.full(120, 0.5)
    after[7] = 0.6
    words = describe(paired_bootstrap_interval(before, after), images=120)
    assert words == "no gain that 120 images can show"


def test_leaderboard_gains_are_those_of_the_seed() -> None:
    gains = {rung.name: leaderboard_gain(rung) for rung in LADDER}
    assert gains == {
        "S8": "-",
        "S9": "+0.08098",
        "S10": "+0.01063",
        "S11": "+0.00552",
        "S12": "+0.01885",
        "S13": "-",
        "S14": "+0.00110 over S12",
    }


def test_commands_are_told_once_and_each_submission_is_scored() -> None:
    block = command_block(LADDER[:2], Sizes(steps=7))
    tools = [line.split()[2] for line in block.splitlines()]
    assert tools == [
        *(f"src.{name}" for name in ("synthesize", "split", "train", "predict", "postprocess")),
        "src.postprocess",
        "src.score",
        "src.score",
    ]
    assert "trainer.max_steps=7" in block


TEXT = "before\n\n<!-- result -->\nold\n<!-- /result -->\n\nafter <!-- commands -->\n"


def test_rewriting_changes_what_is_between_the_markers_alone(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    rewrite(path, "result", "| new |")
    wanted = TEXT.replace("old\n", "\n| new |\n\n")
    assert path.read_text() == wanted
    rewrite(path, "result", "| new |")
    assert path.read_text() == wanted
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text",
    [
        "nothing\n",
        TEXT.replace("<!-- /result -->\n", ""),
        TEXT + TEXT,
        "<!-- /result -->\n<!-- result -->\n",
    ],
)
def test_markers_that_are_no_pair_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(InputError, match=r"README.md: a line '<!-- result -->' and after it"):
        rewrite(path, "result", "| new |")
    assert path.read_text() == text


def test_every_rung_has_a_folder_whose_readme_can_be_written(tmp_path: Path) -> None:
    experiments = GOLDEN.parents[2] / "experiments"
    folders = {path.parent.name for path in experiments.glob("*/README.md")}
    assert folders == {*FOLDERS, *RECIPES, "demo"}  # the demo is no rung
    for readme, names in [
        (experiments / "README.md", ("result",)),
        *((experiments / folder / "README.md", ("result", "commands")) for folder in FOLDERS),
    ]:
        copy = tmp_path / "README.md"
        copy.write_text(readme.read_text())
        for name in names:
            rewrite(copy, name, "new")


def test_the_readmes_have_the_commands_of_today() -> None:
    experiments = GOLDEN.parents[2] / "experiments"
    for folder in FOLDERS:
        rungs = [rung for rung in LADDER if rung.folder == folder]
        assert command_block(rungs, Sizes()) in (experiments / folder / "README.md").read_text()
