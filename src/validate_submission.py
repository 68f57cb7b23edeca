"""Check a submission: ``python -m src.validate_submission submission=FILE``."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from src.annotations.competition import Competition
from src.cli.entry_point import entry_point, to_plain
from src.console import say
from src.submission.validation import validate_submission


@entry_point("validate_submission")
def main(config: DictConfig) -> None:
    """List every violation; the exit code is 1 if there is one."""
    rules = config.get("competition")
    report = validate_submission(
        config.submission,
        sample_submission=config.sample_submission,
        images=config.images,
        competition=None if rules is None else Competition.from_config(to_plain(rules)),
        label_descriptions=config.label_descriptions,
    )
    for violation in report.violations:
        say(violation, file=sys.stdout)
    read = f"{report.rows} rows of {report.images} images, {report.format}"
    if config.sample_submission is None:
        read += "; image ids not checked, for there is no sample"
    if report.violations:
        count = len(report.violations)
        print(f"{config.submission}: {count} violation{'s' if count > 1 else ''} ({read})")
        sys.exit(1)
    print(f"{config.submission}: valid ({read})")


if __name__ == "__main__":
    main()
