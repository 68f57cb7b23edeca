"""From what was measured to the tables of the README files."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.rungs import LADDER, Rung, Sizes, score_command, steps
from src.errors import InputError
from src.metrics.intervals import Interval, PairedInterval

HEAD = (
    "| rung | leaderboard | gain there | here | gain here | probability of being better | in words "
    "|\n|---|---|---|---|---|---|---|"
)
NONE = "-"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a rung scored here."""

    rung: Rung
    score: Interval
    gain: PairedInterval | None  # over the rung before; None for the first
    images: int
    commits: tuple[str, ...]  # of the code that ran its commands


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for a whole table."""

    sizes: Sizes
    minutes: float
    machine: str
    averaging: str


def describe(gain: PairedInterval, images: int) -> str:
    """What the interval of a difference says, and no more than that."""
    difference = gain.difference
    if difference.low > 0:
        return "a gain: the whole interval is above 0"
    if difference.high < 0:
        return "a loss: the whole interval is below 0"
    if difference.low == difference.high == 0:
        return f"no effect: none of {images} images scores differently"
    return f"no gain that {images} images can show"


def leaderboard_gain(rung: Rung) -> str:
    """The leaderboard's gain over the last rung before that has a figure."""
    before = [other for other in LADDER[: LADDER.index(rung)] if other.leaderboard is not None]
    if rung.leaderboard is None or not before:
        return NONE
    last = before[-1]
    assert last.leaderboard is not None
    gain = f"{rung.leaderboard - last.leaderboard:+.5f}"
    follows_directly = LADDER.index(last) == LADDER.index(rung) - 1
    return gain if follows_directly else f"{gain} over {last.name}"


def table_row(measured: Measured) -> str:
    """One line of a table."""
    rung, gain = measured.rung, measured.gain
    return _row(
        f"{rung.name} {rung.what}",
        NONE if rung.leaderboard is None else f"{rung.leaderboard:.5f}",
        leaderboard_gain(rung),
        _with_interval(measured.score, ".3f"),
        NONE if gain is None else _with_interval(gain.difference, "+.4f"),
        NONE if gain is None else f"{gain.probability_better:.3f}",
        NONE if gain is None else describe(gain, measured.images),
    )


def table(measured: Sequence[Measured], conditions: Conditions) -> str:
    """The rungs below each other, and what a reader has to know of the figures."""
    first = measured[0]
    sizes = conditions.sizes
    commits = dict.fromkeys(commit for one in measured for commit in one.commits)
    notes = (
        f"Here: mean score of {first.images} generated test images "
        f"(averaging={conditions.averaging}, use_attributes=true) with its "
        f"{first.score.confidence:.0%} bootstrap interval over images. A gain is that over the "
        "rung before, on the same images, with its paired interval and the share of "
        f"{first.score.resamples:,} resamples in which this rung is the better one. The model: "
        f"{sizes.steps} steps on {sizes.num_train_images - sizes.num_validation_images} images; "
        f"{sizes.num_validation_images} others chose its checkpoints. Commit {', '.join(commits)}; "
        f"{conditions.minutes:.0f} minutes for these rungs and what they build on (an interrupted "
        "command counts from where it resumed), on "
        f"{conditions.machine}."
    )
    return "\n".join((HEAD, *(table_row(one) for one in measured), "", textwrap.fill(notes, 110)))


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table of single scores, each compared with another row's."""

    name: str
    score: Interval
    gain: PairedInterval | None  # over the row that it is compared with
    images: int


def paired_table(rows: Sequence[Row], *, head: str, compared: str) -> str:
    """Rows below each other, each with its gain.

    Args:
        rows: The rows.
        head: Of the first column.
        compared: Of the column of the gains.
    """
    lines = [_row(head, "score", compared, "probability of being better", "in words")]
    lines.append("|" + "---|" * 5)
    for row in rows:
        gain = row.gain
        lines.append(
            _row(
                row.name,
                _with_interval(row.score, ".3f"),
                NONE if gain is None else _with_interval(gain.difference, "+.4f"),
                NONE if gain is None else f"{gain.probability_better:.3f}",
                NONE if gain is None else describe(gain, row.images),
            )
        )
    return "\n".join(lines)


def command_block(rungs: Iterable[Rung], sizes: Sizes) -> str:
    """The commands of some rungs, each once, and how to see their scores."""
    rungs = tuple(rungs)
    made = dict.fromkeys(command for rung in rungs for command in steps(rung, sizes))
    shown = dict.fromkeys(score_command(rung) for rung in rungs)
    return "\n".join(f"    {command}" for command in (*made, *shown))


def rewrite(path: Path, name: str, block: str) -> None:
    """Put a block between the markers of that name in a README.

    Raises:
        InputError: the file has not exactly one such pair of markers.
    """
    opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    text = path.read_text(encoding="utf-8")
    start, end = text.find(opening), text.find(closing)
    if text.count(opening) != 1 or text.count(closing) != 1 or end < start:
        raise InputError(
            f"{path}: a line {opening.strip()!r} and after it a line {closing.strip()!r} are "
            "wanted, each once; what is measured is written between them"
        )
    temporary = path.with_suffix(".tmp")
    new = f"{text[: start + len(opening)]}\n{block}\n\n{text[end:]}"
    temporary.write_text(new, encoding="utf-8")
    temporary.replace(path)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _with_interval(interval: Interval, form: str) -> str:
    return f"{interval.estimate:{form}} ({interval.low:{form}} to {interval.high:{form}})"
