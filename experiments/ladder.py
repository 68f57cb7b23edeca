"""The winner's ladder climbed on generated images: ``python -m experiments.ladder``.

Each rung is the commands that a reader would type, run one after another
(``experiments/rungs.py``). Their submissions are scored image by image, each is compared with the
rung before, and the README files of the rungs get the result.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from experiments import photograph_tables
from experiments.photographs import data_set
from experiments.rungs import (
    DIRECTORY,
    FOLDERS,
    LADDER,
    TRUTH,
    Rung,
    Sizes,
    rung_before,
    rungs_of,
    steps,
)
from experiments.running import ROOT, CommandError, Done, run_steps
from experiments.tables import Conditions, Measured, command_block, rewrite, table
from src.annotations.competition import Averaging
from src.errors import InputError
from src.metrics.competition import CompetitionScore
from src.metrics.intervals import bootstrap_interval, paired_bootstrap_interval
from src.metrics.scoring import compare, open_ground_truth, open_submission, score_comparison

AVERAGING: Averaging = "per_class"


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.ladder",
        description="Climb the ladder on generated images and write the result into README files.",
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help=f"of {', '.join(FOLDERS)}")
    parser.add_argument(
        "--directory", type=Path, default=Path(), help=f"where {DIRECTORY} is written"
    )
    parser.add_argument(
        "--readmes", type=Path, default=ROOT / "experiments", help="the folders of the rungs"
    )
    for size in fields(Sizes):
        parser.add_argument(f"--{size.name.replace('_', '-')}", type=int, default=size.default)
    return parser.parse_args(words)


def score_rungs(rungs: Iterable[Rung], directory: Path) -> dict[Rung, CompetitionScore]:
    """Score the submissions of rungs; attributes count, as on the leaderboard."""
    scores = {}
    with open_ground_truth(directory / TRUTH, use_attributes=True) as ground_truth:
        for rung in rungs:
            path = directory / rung.submission
            with open_submission(path, ground_truth) as submission:
                comparison = compare(ground_truth, submission, prediction_name=str(path))
                scores[rung] = score_comparison(comparison, averaging=AVERAGING)
    return scores


def measure(
    rung: Rung, scores: dict[Rung, CompetitionScore], done: dict[Rung, list[Done]]
) -> Measured:
    """Give the rung's score its interval, and compare it with the rung before."""
    score, before = scores[rung], rung_before(rung)
    return Measured(
        rung=rung,
        score=bootstrap_interval(score.per_image),
        gain=None
        if before is None
        else paired_bootstrap_interval(scores[before].per_image, score.per_image),
        images=score.images,
        commits=tuple(dict.fromkeys(step.commit for step in done[rung])),
    )


def climb(
    wanted: Sequence[Rung], *, sizes: Sizes, directory: Path, readmes: Path
) -> list[Measured]:
    """Run rungs and those before them, measure them, and write the README files.

    Args:
        wanted: the rungs whose README is written; of the whole ladder, also that of ``readmes``.
        sizes: how many images and steps.
        directory: where the commands run.
        readmes: the folder of the rungs' folders.

    Raises:
        CommandError: a command ended with an error.
        InputError: a README lacks its markers.
    """
    needed = [r for r in LADDER if r in wanted or any(rung_before(w) == r for w in wanted)]
    done = {}
    for number, rung in enumerate(needed, start=1):
        print(f"[{number}/{len(needed)}] {rung.name} {rung.what}", flush=True)
        done[rung] = run_steps(steps(rung, sizes), directory)
    scores = score_rungs(needed, directory)
    measured = [measure(rung, scores, done) for rung in wanted]

    def conditions(rungs: Iterable[Rung]) -> Conditions:
        seconds = {step.command: step.seconds for rung in rungs for step in done[rung]}
        machine = f"{os.cpu_count()} cores ({platform.machine()})"
        return Conditions(sizes, sum(seconds.values()) / 60, machine, AVERAGING)

    for folder in dict.fromkeys(rung.folder for rung in wanted):
        here = [one for one in measured if one.rung.folder == folder]
        rungs = [one.rung for one in here]
        rewrite(readmes / folder / "README.md", "result", table(here, conditions(rungs)))
        rewrite(readmes / folder / "README.md", "commands", command_block(rungs, sizes))
    if len(wanted) == len(LADDER):
        rewrite(readmes / "README.md", "result", table(measured, conditions(wanted)))
    return measured


def climb_photographs(words: Sequence[str]) -> int:
    """Climb on photographs, as ``key=value`` words say, and return the exit code."""
    try:
        pairs = [word.partition("=") for word in words]
        if wrong := [key for key, equals, _ in pairs if not equals]:
            raise InputError(f"arguments must be key=value, got {wrong[0]}")
        data, tables = data_set({key: value for key, _, value in pairs})
        rows = photograph_tables.climb(
            data, directory=Path(), readmes=ROOT / "experiments", tables=tables
        )
    except (InputError, CommandError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in rows:
        print(f"{row.score.estimate:.4f}  {row.name}")
    return 0


def main(words: Sequence[str]) -> int:
    """Climb, and return the exit code."""
    if any(word.startswith("data=") for word in words):
        return climb_photographs(words)
    options = parse_arguments(words)
    sizes = Sizes(**{size.name: getattr(options, size.name) for size in fields(Sizes)})
    try:
        measured = climb(
            rungs_of(options.folders),
            sizes=sizes,
            directory=options.directory,
            readmes=options.readmes,
        )
    except (InputError, CommandError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for one in measured:
        gain = "" if one.gain is None else f", {one.gain.difference.estimate:+.4f}"
        print(f"{one.rung.name:4} {one.score.estimate:.4f}{gain}  {one.rung.what}")
    print(f"wrote the tables in {options.readmes}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
