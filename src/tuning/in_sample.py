"""Settings that a search found, and the images that chose them: scored there, they are flattered.

A search writes which images it used into the option that it writes, by their content: a digest of
the ground-truth instances of each. So they are known again whatever the file of the ground truth is
called, and however the images are named.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.errors import InputError
from src.io import printable
from src.metrics.competition import ImageInstances, split_key
from src.metrics.intervals import Interval
from src.metrics.scoring import is_score_file, read_scores
from src.postprocess.settings import SEARCHED_KEY

_DIGEST_BYTES = 6


@dataclass(frozen=True, slots=True)
class Searched:
    """Record of the search that found some settings."""

    name: str  # of the option
    trials: int
    averaging: str
    gain: Interval  # over the winner's settings, cross-validated
    verdict: str
    images: frozenset[bytes]  # digests, see image_digest

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for YAML and JSON."""
        digests = base64.b64encode(b"".join(sorted(self.images))).decode()
        return {
            "name": self.name,
            "trials": self.trials,
            "averaging": self.averaging,
            "cross_validated_gain": asdict(self.gain),
            "verdict": self.verdict,
            "images": digests,
        }


@dataclass(frozen=True, slots=True)
class InSample:
    """Found settings, and those of the scored images that chose them."""

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
        """Return what a reader of a score should know; empty where none of its images is in-sample.

        Args:
            subject: Whose settings they are, ``b's settings``.
            image_ids: The images that are scored.
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
    """Return a fingerprint of an image's instances: categories and masks, in any order.

    An image without an object is told by its id.
    """
    objects = sorted(
        str(split_key(key)[0]).encode() + mask.tobytes()
        for key, mask in zip(ground_truth.class_keys, ground_truth.bitmasks.bits, strict=True)
    )
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in objects or [ground_truth.image_id.encode()]:
        digest.update(part)
    return digest.digest()


def searched_images(
    ground_truth: Mapping[str, ImageInstances], image_ids: Iterable[str]
) -> frozenset[bytes]:
    """Return the digests of these images."""
    return frozenset(image_digest(ground_truth[image_id]) for image_id in image_ids)


def read_searched(values: Mapping[str, Any], where: str) -> Searched | None:
    """Return what a search says of settings; None where no search found them.

    Args:
        values: With the key ``searched``: a group ``postprocess``, or a score file.
        where: What messages call them.

    Raises:
        InputError: The key holds something else than a search wrote.
    """
    content = values.get(SEARCHED_KEY)
    if content is None:
        return None
    try:
        digests = base64.b64decode(content["images"], validate=True)
        gain = {key: float(content["cross_validated_gain"][key]) for key in _GAIN}
        return Searched(
            name=str(content["name"]),
            trials=int(content["trials"]),
            averaging=str(content["averaging"]),
            gain=Interval(**gain, resamples=int(content["cross_validated_gain"]["resamples"])),
            verdict=str(content["verdict"]),
            images=frozenset(
                digests[start : start + _DIGEST_BYTES]
                for start in range(0, len(digests), _DIGEST_BYTES)
            ),
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
    """Return which of these images have chosen the settings; None where none has.

    Args:
        values: Of the group ``postprocess``.
        ground_truth: Ground-truth instances by image id.
        image_ids: The images that are scored.
        where: What messages call the group.

    Raises:
        InputError: As for ``read_searched``.
    """
    searched = read_searched(values, where)
    if searched is None:
        return None
    found = frozenset(
        image_id
        for image_id in image_ids
        if image_digest(ground_truth[image_id]) in searched.images
    )
    return InSample(searched, found) if found else None


def read_beside(submission: Path) -> InSample | None:
    """Return what the ``score.json`` beside a submission says of its settings; None without one.

    A file that was changed since then, or written by something else, is not what it speaks of.

    Raises:
        InputError: The score file is damaged.
    """
    path = submission.with_name("score.json")
    if not is_score_file(path):
        return None
    content = read_scores(path).content
    searched = content.get(SEARCHED_KEY)
    if not isinstance(searched, Mapping):
        return None
    is_of_it = searched.get("submission_sha256") == _sha256(submission)
    return read_in_sample(content, str(path)) if is_of_it else None


def read_in_sample(content: Mapping[str, Any], where: str) -> InSample | None:
    """Return what ``InSample.to_plain`` has written under ``searched``; None where it is not there.

    Raises:
        InputError: As for ``read_searched``.
    """
    searched = read_searched(content, where)
    if searched is None:
        return None
    image_ids = content[SEARCHED_KEY].get("in_sample")
    if not isinstance(image_ids, list):
        raise InputError(f"{where}.{SEARCHED_KEY}.in_sample must be a list of image ids")
    return InSample(searched, frozenset(map(str, image_ids)))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_GAIN = ("estimate", "low", "high", "confidence")
