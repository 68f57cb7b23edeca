"""``score.json``: a score with that of each image, so that two of them can be compared later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.errors import InputError
from src.io import read_json_object, refuse_special_file, write_json
from src.metrics.competition import CompetitionScore


@dataclass(frozen=True, slots=True)
class ImageScores:
    """The scores of images, and how they were made."""

    averaging: str
    use_attributes: bool
    per_image: Mapping[str, float]  # by image id
    content: Mapping[str, Any]  # all that the file has


def write_scores(path: Path, summary: Mapping[str, Any], score: CompetitionScore) -> None:
    """Write a summary and the scores of the images, the file whole or not at all.

    Args:
        path: The file.
        summary: Plain JSON values; ``averaging`` and ``use_attributes`` among them.
        score: Whose images' scores are written as ``per_image``.
    """
    per_image = dict(zip(score.image_ids, score.per_image.tolist(), strict=True))
    write_json(path, {**summary, "per_image": per_image}, sort_keys=False)


def is_score_file(path: Path) -> bool:
    """Whether a file begins as ``write_scores`` writes it; an annotation file of gigabytes does
    not."""
    if path.suffix != ".json":
        return False
    refuse_special_file(path)
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except OSError:
        return False
    return start.lstrip()[:1] == b"{" and b'"competition_map"' in start


def read_scores(path: Path) -> ImageScores:
    """Read what ``write_scores`` has written.

    Raises:
        InputError: the file is damaged, has no scores of images, or one is no number.
    """
    try:
        content = read_json_object(path)
    except InputError as error:
        raise InputError(f"{error}; a damaged score file, make it anew") from error
    per_image = content.get("per_image")
    if not isinstance(per_image, dict) or not per_image:
        raise InputError(
            f"{path}: has no scores of single images (per_image); python -m src.score output=... "
            "and python -m src.postprocess write them"
        )
    for image_id, value in per_image.items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"{path}: per_image: {image_id}: {value!r} is no score from 0 to 1")
    return ImageScores(
        averaging=str(content.get("averaging")),
        use_attributes=bool(content.get("use_attributes")),
        per_image=per_image,
        content=content,
    )
