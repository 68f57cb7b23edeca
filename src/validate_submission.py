"""Check a submission: ``python -m src.validate_submission submission=FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from src.annotations.categories import read_label_descriptions
from src.annotations.image_files import read_size_hw
from src.annotations.image_names import file_name_of, find_image, read_image_ids
from src.annotations.sources import default_labels, detect_format
from src.cli.entry_point import entry_point
from src.console import say
from src.errors import InputError
from src.io import refuse_special_file
from src.submission.formats import FORMATS, SubmissionFormat, format_named
from src.submission.validation import Findings, check_submission


def chosen_format(name: str, submission: Path) -> SubmissionFormat:
    """Return the format that is asked for; ``auto``: told from the columns.

    Raises:
        InputError: no such format.
    """
    if name == "auto":
        try:
            return FORMATS.get(detect_format(submission)) or FORMATS["imaterialist_2019"]
        except InputError:  # no header at all; what is wrong with it is listed
            return FORMATS["imaterialist_2019"]
    return format_named(name)


def image_sizes(images: str | None, image_ids: list[str]) -> dict[str, tuple[int, int]]:
    """Return (height, width) of each image that is there, by image id.

    Raises:
        InputError: no such folder, or an image cannot be read.
    """
    if images is None:
        return {}
    folder = Path(images)
    if not folder.is_dir():
        raise InputError(f"images={images}: no such folder")
    files = {name: find_image(folder, file_name_of(name), key="ImageId") for name in image_ids}
    return {name: read_size_hw(file) for name, file in files.items() if file.exists()}


def find_violations(config: DictConfig) -> tuple[Findings, SubmissionFormat]:
    """Check the file that the configuration names.

    Raises:
        InputError: a file cannot be read, or a value is not legal.
    """
    path = Path(config.submission)
    refuse_special_file(path)
    if not path.is_file():
        raise InputError(f"submission={path}: no such file")
    written_as = chosen_format(config.format, path)
    image_ids = (
        None if config.sample_submission is None else list(read_image_ids(config.sample_submission))
    )
    labels = (
        default_labels(written_as.name)
        if config.label_descriptions is None
        else read_label_descriptions(config.label_descriptions)
    )
    findings = check_submission(
        path,
        written_as=written_as,
        image_ids=image_ids,
        labels=labels,
        sizes_hw=image_sizes(config.images, image_ids or []),
    )
    return findings, written_as


@entry_point("validate_submission")
def main(config: DictConfig) -> None:
    """Hydra's task: list every violation, end with exit code 1 where there is one."""
    findings, written_as = find_violations(config)
    for violation in findings.violations:
        say(violation, file=sys.stdout)
    read = f"{findings.rows} rows of {findings.images} images, {written_as.name}"
    if config.sample_submission is None:
        read += "; image ids not checked, for there is no sample"
    if findings.violations:
        count = len(findings.violations)
        print(f"{config.submission}: {count} violation{'s' if count > 1 else ''} ({read})")
        sys.exit(1)
    print(f"{config.submission}: valid ({read})")


if __name__ == "__main__":
    main()
