"""Results of a search: the settings found, their scores, and the images they were chosen on.

On the images that they were chosen on, settings look better than they are. So a search records
these images in its option, each as a digest of its ground-truth instances, which does not depend on
the names of the images and files.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from src.errors import InputError
from src.io import printable, refuse_special_file, write_text
from src.metrics.competition import ImageInstances, split_key
from src.metrics.intervals import (
    Interval,
    PairedInterval,
    bootstrap_interval,
    paired_bootstrap_interval,
)
from src.metrics.scoring import is_score_file, read_scores
from src.postprocess.settings import SEARCHED_KEY, PostprocessSettings
from src.tuning.settings_evaluator import Scores
from src.validation import shown

ORIGIN_CHARACTERS = 10_000  # of a comment; a line end in a path would start a key
HEADER = "# Found by python -m src.search"
LAB_HEADER = "# Chosen in python -m src.lab"
_DIGEST_BYTES = 6

DEFAULT, WINNER = "default (S8)", "winner (S9)"
HELD_OUT = "found: cross-validated"  # each image under the settings selected without its fold
COMMON = "  no class thresholds"  # the same without class thresholds
IN_SAMPLE = "found: in-sample"  # the images under the settings that they selected
_JSON_KEYS = {
    DEFAULT: "default",
    WINNER: "winner",
    COMMON: "cross_validated_without_class_thresholds",
    HELD_OUT: "cross_validated",
    IN_SAMPLE: "in_sample",
}


@dataclass(frozen=True, slots=True)
class Searched:
    """Record of the search that found some settings."""

    name: str  # of the option
    trials: int
    averaging: str
    gain: Interval  # over the winner's settings, cross-validated
    verdict: str
    images: frozenset[bytes]  # digests, see image_digest
    cross_validated: float | None = None  # the score on held-out images; None: an earlier record

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for YAML and JSON."""
        return {
            "name": self.name,
            "trials": self.trials,
            "averaging": self.averaging,
            "cross_validated_gain": asdict(self.gain),
            "verdict": self.verdict,
            **({} if self.cross_validated is None else {"cross_validated": self.cross_validated}),
            "images": base64.b64encode(b"".join(sorted(self.images))).decode(),
        }


@dataclass(frozen=True, slots=True)
class InSample:
    """Settings that a search found, and the scored images that they were chosen on."""

    searched: Searched
    image_ids: frozenset[str]

    def to_plain(self, submission: Path) -> dict[str, Any]:
        """Return plain values for the score file beside a submission."""
        return {
            **self.searched.to_plain(),
            "in_sample": sorted(self.image_ids),
            "submission_sha256": _sha256(submission),
        }

    def sentence(self, subject: str, image_ids: Iterable[str]) -> str:
        """Return a note on the score of these images; empty where none of them is in-sample.

        ``subject`` names the settings, such as ``b's settings``.
        """
        scored = set(image_ids)
        count = len(self.image_ids & scored)
        if not count:
            return ""
        searched, gain = self.searched, self.searched.gain
        return (
            f"{subject} ({printable(searched.name)}) were chosen by a search on {count} of these "
            f"{len(scored)} images, so the score is in-sample and looks better than it is; the "
            f"search's cross-validated gain over the winner's settings is {gain.estimate:+.4f} "
            f"({gain.confidence:.0%} interval {gain.low:+.4f} to {gain.high:+.4f}, "
            f"{searched.averaging}): {printable(searched.verdict)}"
        )


def image_digest(ground_truth: ImageInstances) -> bytes:
    """Return a fingerprint of the categories and masks of an image's instances, in any order.

    An image without an instance is identified by its id.
    """
    instances = sorted(
        str(split_key(key)[0]).encode() + mask.tobytes()
        for key, mask in zip(ground_truth.class_keys, ground_truth.bitmasks.bits, strict=True)
    )
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in instances or [ground_truth.image_id.encode()]:
        digest.update(part)
    return digest.digest()


def searched_images(
    ground_truth: Mapping[str, ImageInstances], image_ids: Iterable[str]
) -> frozenset[bytes]:
    """Return the digests of these images."""
    return frozenset(image_digest(ground_truth[image_id]) for image_id in image_ids)


def read_searched(values: Mapping[str, Any], where: str) -> Searched | None:
    """Return the record of the search that found some settings; None where no search did.

    It is in a group ``postprocess`` or a score file, under ``searched``; ``where`` names the values
    in messages.

    Raises:
        InputError: The key holds something other than a search wrote.
    """
    content = values.get(SEARCHED_KEY)
    if content is None:
        return None
    try:
        digests = base64.b64decode(content["images"], validate=True)
        starts = range(0, len(digests), _DIGEST_BYTES)
        gain = content["cross_validated_gain"]
        numbers = {key: float(gain[key]) for key in ("estimate", "low", "high", "confidence")}
        return Searched(
            name=str(content["name"]),
            trials=int(content["trials"]),
            averaging=str(content["averaging"]),
            gain=Interval(**numbers, resamples=int(gain["resamples"])),
            verdict=str(content["verdict"]),
            images=frozenset(digests[start : start + _DIGEST_BYTES] for start in starts),
            cross_validated=None
            if (held_out := content.get("cross_validated")) is None
            else float(held_out),
        )
    except (TypeError, ValueError, LookupError, AttributeError, binascii.Error) as error:
        raise InputError(
            f"{where}.{SEARCHED_KEY} must be what python -m src.search wrote, got "
            f"{printable(content, limit=60)}; leave the key out, or search again"
        ) from error


def find_in_sample(
    values: Mapping[str, Any],
    ground_truth: Mapping[str, ImageInstances],
    image_ids: Iterable[str],
    where: str,
) -> InSample | None:
    """Return which of these images a group's settings were chosen on; None where there is none.

    Raises:
        InputError: As for ``read_searched``.
    """
    searched = read_searched(values, where)
    if searched is None:
        return None
    digests = {image_id: image_digest(ground_truth[image_id]) for image_id in image_ids}
    found = frozenset(name for name, digest in digests.items() if digest in searched.images)
    return InSample(searched, found) if found else None


def read_beside(submission: Path) -> InSample | None:
    """Return the record in the ``score.json`` beside a submission; None where there is none.

    The record counts only for the very file that it was written with.

    Raises:
        InputError: The score file is damaged.
    """
    path = submission.with_name("score.json")
    if not is_score_file(path):
        return None
    content = read_scores(path).content
    searched = content.get(SEARCHED_KEY)
    if isinstance(searched, Mapping) and searched.get("submission_sha256") == _sha256(submission):
        return read_in_sample(content, str(path))
    return None


def read_in_sample(content: Mapping[str, Any], where: str) -> InSample | None:
    """Return the record that ``InSample.to_plain`` wrote to a score file; None without one.

    Raises:
        InputError: The record is damaged.
    """
    searched = read_searched(content, where)
    if searched is None:
        return None
    image_ids = content[SEARCHED_KEY].get("in_sample")
    if not isinstance(image_ids, list):
        raise InputError(
            f"{where}.{SEARCHED_KEY}.in_sample must be a list of image ids, got {shown(image_ids)}"
        )
    return InSample(searched, frozenset(map(str, image_ids)))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def option_path(config_directory: Path, name: str, *, header: str = HEADER) -> Path:
    """Return the path of the option of this name: ``postprocess/NAME.yaml``.

    Args:
        config_directory: With the folder ``postprocess``.
        name: The option's.
        header: The beginning of the files that may be overwritten.

    Raises:
        InputError: The name is not legal, or the file is no earlier one of the same tool.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", str(name)):
        raise InputError(f"name must be made of letters, digits, _ and -, got {shown(name)}")
    path = config_directory / "postprocess" / f"{name}.yaml"
    if path.exists() and not is_found(path, header=header):
        earlier = "that of an earlier search" if header == HEADER else "one written here before"
        writer = "no search" if header == HEADER else "another tool or by hand"
        raise InputError(
            f"name must be a new one or {earlier}, got {shown(name)} ({path} was written by "
            f"{writer} and is not overwritten)"
        )
    return path


def is_found(path: Path, *, header: str = HEADER) -> bool:
    """Return whether a tool wrote this file: a search, or that of the header."""
    refuse_special_file(path)
    with path.open("rb") as file:
        return file.read(len(header)) == header.encode()


def write_option(
    path: Path,
    settings: PostprocessSettings,
    origin: Sequence[str],
    searched: Searched | None = None,
    *,
    header: str = HEADER,
) -> None:
    """Write an option of the group ``postprocess``, the file whole or not at all.

    ``origin`` says where the settings come from and how good they are, a comment line each;
    ``searched`` says it for programs.
    """
    # null: no class has a threshold of its own
    values = {key: None if value == {} else value for key, value in settings.to_dict().items()}
    if searched is not None:
        values[SEARCHED_KEY] = searched.to_plain()
    lines = [f"{header}.", *(f"# {printable(line, limit=ORIGIN_CHARACTERS)}" for line in origin)]
    text = "\n".join(lines) + "\n" + yaml.safe_dump(values, sort_keys=False, width=120)
    write_text(path, text)


@dataclass(frozen=True, slots=True, eq=False)
class FoundSettings:
    """Settings that a search found."""

    settings: PostprocessSettings  # selected on all images
    in_sample: Scores  # (M,) their score on these images
    held_out: Scores  # (M,) each image under the settings selected without its fold
    held_out_common: Scores  # (M,) the same without class thresholds


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
        """``better``, ``worse`` or ``within noise``: held-out images against the winner's score."""
        difference = self.over_winner[HELD_OUT].difference
        if difference.low > 0:
            return "better"
        return "worse" if difference.high < 0 else "within noise"

    @property
    def sentences(self) -> list[str]:
        """Conclusions for the reader, a sentence each."""
        gain = self.over_winner[HELD_OUT].difference
        held_out = self.scores[HELD_OUT].estimate
        verdicts = {
            "better": "more than noise",
            "worse": "a loss: take the winner's settings",
            "within noise": f"within noise: {self.images} images cannot tell the two apart",
        }
        sentences = [
            "Gain over the winner's settings on held-out images: "
            f"{gain.estimate:+.4f} ({gain.confidence:.0%} interval {gain.low:+.4f} to "
            f"{gain.high:+.4f}), {verdicts[self.verdict]}.",
            f"On new images expect the cross-validated {held_out:.4f}; in-sample it is "
            f"{self.scores[IN_SAMPLE].estimate - held_out:+.4f} from that, because the "
            f"settings were chosen on these {self.images} images among {self.trials} trials.",
        ]
        if held_out < self.scores[COMMON].estimate:
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
                row += [f"{gain.estimate:+.4f}", f"{gain.low:+.3f} to {gain.high:+.3f}"]
                row.append(f"{paired.probability_better:.0%}")
            table.add_row(*row)
        return table

    def summary(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        plain = asdict(self)
        for key in ("scores", "over_winner"):
            plain[key] = {_JSON_KEYS[name]: value for name, value in plain[key].items()}
        return plain | {"verdict": self.verdict}


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
    """Compare the images' scores, (M,) each, all resampled with the same draws."""
    per_image = {
        DEFAULT: default,
        WINNER: winner,
        HELD_OUT: found.held_out,
        COMMON: found.held_out_common,
        IN_SAMPLE: found.in_sample,
    }
    options: Any = {"num_resamples": num_resamples, "confidence": confidence, "seed": seed}
    scores = {name: bootstrap_interval(own, **options) for name, own in per_image.items()}
    over_winner = {
        name: paired_bootstrap_interval(winner, own, **options)
        for name, own in per_image.items()
        if name != WINNER
    }
    return SearchResult(scores, over_winner, len(winner), folds, trials, averaging)
