"""Results of a search: the settings found, and how they were found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from src.errors import InputError
from src.io import printable, refuse_special_file, write_text
from src.metrics.intervals import (
    Interval,
    PairedInterval,
    bootstrap_interval,
    paired_bootstrap_interval,
)
from src.postprocess.settings import SEARCHED_KEY, PostprocessSettings
from src.tuning.cross_validation import FoundSettings, Scores
from src.tuning.in_sample import Searched

ORIGIN_CHARACTERS = 10_000  # of a comment; a line end in a path would start a key
HEADER = "# Found by python -m src.search"


def option_path(config_directory: Path, name: str) -> Path:
    """Return the path of the option of this name: ``postprocess/NAME.yaml``.

    Raises:
        InputError: The name is none for an option, or a file that no search wrote is there.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)):
        raise InputError(f"name={name}: letters, digits, _ and - make a name")
    path = config_directory / "postprocess" / f"{name}.yaml"
    if path.exists() and not is_found(path):
        raise InputError(
            f"name={name}: {path} was written by no search and is not overwritten; give another"
        )
    return path


def is_found(path: Path) -> bool:
    """Return whether a search wrote this file."""
    refuse_special_file(path)
    with path.open("rb") as file:
        return file.read(len(HEADER)) == HEADER.encode()


def write_option(
    path: Path,
    settings: PostprocessSettings,
    origin: Sequence[str],
    searched: Searched | None = None,
) -> None:
    """Write the file whole or not at all.

    Args:
        path: From ``option_path``.
        settings: What it says.
        origin: Where the settings come from and how good they are, a comment line each.
        searched: The same for programs: which images chose them.
    """
    # null: no class has a threshold of its own
    values = {key: None if value == {} else value for key, value in settings.to_dict().items()}
    if searched is not None:
        values[SEARCHED_KEY] = searched.to_plain()
    lines = [f"{HEADER}.", *(f"# {printable(line, limit=ORIGIN_CHARACTERS)}" for line in origin)]
    text = "\n".join(lines) + "\n" + yaml.safe_dump(values, sort_keys=False, width=120)
    write_text(path, text)


DEFAULT, WINNER = "default (S8)", "winner (S9)"
HELD_OUT = "found: cross-validated"  # each image by what was chosen without its fold
COMMON = "  no class thresholds"  # the same before classes got thresholds of their own
IN_SAMPLE = "found: in-sample"  # the images by what they chose themselves


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Scores with their intervals, and each one's difference from the winner's settings."""

    scores: Mapping[str, Interval]
    over_winner: Mapping[str, PairedInterval]
    images: int
    folds: int
    trials: int
    averaging: str

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``within noise``: held-out images beside the winner's score."""
        difference = self.over_winner[HELD_OUT].difference
        if difference.low > 0:
            return "better"
        return "worse" if difference.high < 0 else "within noise"

    @property
    def sentences(self) -> list[str]:
        """Return what a reader should take from the result, a sentence each."""
        gain = self.over_winner[HELD_OUT].difference
        shown = (
            f"{gain.estimate:+.4f} ({gain.confidence:.0%} interval {gain.low:+.4f} to "
            f"{gain.high:+.4f})"
        )
        verdicts = {
            "better": "more than noise",
            "worse": "a loss: take the winner's settings",
            "within noise": f"within noise: {self.images} images cannot tell the two apart",
        }
        flattery = self.scores[IN_SAMPLE].estimate - self.scores[HELD_OUT].estimate
        sentences = [
            f"Gain over the winner's settings on held-out images: {shown}, "
            f"{verdicts[self.verdict]}.",
            f"On new images expect the cross-validated {self.scores[HELD_OUT].estimate:.4f}; "
            f"in-sample it is {flattery:+.4f} from that, because these {self.images} images chose "
            f"among {self.trials} trials.",
        ]
        if self.scores[HELD_OUT].estimate < self.scores[COMMON].estimate:
            sentences.append(
                "Thresholds of single classes do not help on held-out images; "
                "space.score_threshold_per_class=null space.mask_threshold_per_class=null "
                "searches without them."
            )
        return sentences

    def table(self) -> Table:
        """Return all scores side by side."""
        interval = f"{self.scores[WINNER].confidence:.0%} interval"
        table = Table(
            box=None,
            header_style="dim",
            padding=(0, 1, 0, 0),
            title=f"{self.averaging}, {self.images} images; gain over the winner",
            title_justify="left",
            title_style="dim",
        )
        table.add_column("")
        for heading in ("score", interval, "gain", interval, "better"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, score in self.scores.items():
            row = [name, f"{score.estimate:.4f}", f"{score.low:.3f} to {score.high:.3f}"]
            if name != WINNER:
                paired = self.over_winner[name]
                gain = paired.difference
                row += [
                    f"{gain.estimate:+.4f}",
                    f"{gain.low:+.3f} to {gain.high:+.3f}",
                    f"{paired.probability_better:.0%}",
                ]
            table.add_row(*row)
        return table

    def summary(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        keys = {
            DEFAULT: "default",
            WINNER: "winner",
            COMMON: "cross_validated_without_class_thresholds",
            HELD_OUT: "cross_validated",
            IN_SAMPLE: "in_sample",
        }
        return {
            "scores": {keys[name]: asdict(score) for name, score in self.scores.items()},
            "over_winner": {keys[name]: asdict(pair) for name, pair in self.over_winner.items()},
            "verdict": self.verdict,
            "images": self.images,
            "folds": self.folds,
            "trials": self.trials,
            "averaging": self.averaging,
        }


def compare_results(
    *,
    default: Scores,
    winner: Scores,
    found: FoundSettings,
    folds: int,
    trials: int,
    averaging: str,
    num_resamples: int,
    confidence: float,
    seed: int,
) -> SearchResult:
    """Put the images' scores, (M,) each, side by side; all resampled with the same draws."""
    per_image = {
        DEFAULT: default,
        WINNER: winner,
        HELD_OUT: found.held_out,
        COMMON: found.held_out_common,
        IN_SAMPLE: found.in_sample,
    }
    options: dict[str, Any] = {
        "num_resamples": num_resamples,
        "confidence": confidence,
        "seed": seed,
    }
    return SearchResult(
        scores={name: bootstrap_interval(own, **options) for name, own in per_image.items()},
        over_winner={
            name: paired_bootstrap_interval(winner, own, **options)
            for name, own in per_image.items()
            if name != WINNER
        },
        images=len(winner),
        folds=folds,
        trials=trials,
        averaging=averaging,
    )
