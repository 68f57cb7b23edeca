"""Convert annotations from one format to another: ``python -m src.convert``."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from src.annotations.conversion import ConversionReport, convert
from src.annotations.formats import ReadingOptions
from src.annotations.image_files import SizeFinding, describe_outcome
from src.annotations.mask_settings import MaskImageSettings
from src.cli.entry_point import entry_point, to_plain
from src.cli.locks import writing
from src.console import PlainConsole, progress_bar
from src.io import check_writable

_MOST_FINDINGS = 50


@entry_point("convert", lock=lambda config: writing(config.output, key="output"))
def main(config: DictConfig) -> None:
    """Convert, with a progress bar, and print a report."""
    keys = to_plain(config)
    output = Path(keys["output"])
    check_writable(output / "store.json" if output.is_dir() else output)
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with progress_bar(*columns) as progress:
        task = progress.add_task("reading", total=None)
        report = convert(
            keys["annotations"],
            keys["output"],
            ReadingOptions(
                images_directory=keys["images"],
                exif=keys["exif"],
                on_bad_rows=keys["on_bad_rows"],
                duplicates=keys["duplicates"],
                label_descriptions=keys["label_descriptions"],
                size_hw=keys["size_hw"],
                mask_images=MaskImageSettings.from_config(keys["mask_images"]),
            ),
            output_format=keys["output_format"],
            skipped_file=keys["skipped_rows"],
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    print_report(report, output=keys["output"])


def print_report(report: ConversionReport, *, output: str) -> None:
    """Print counts of a conversion, and the images that were annotated with another size."""
    console = PlainConsole(soft_wrap=True)
    console.print(f"{report.input_format} -> {report.output_format}: {output}")
    console.print(f"{report.instances} instances on {report.images} images")
    if report.labels_file is not None:
        console.print(f"categories and attributes: {report.labels_file}")
    if report.crowd_regions and report.output_format.startswith("imaterialist"):
        console.print(f"{report.crowd_regions} crowd regions are plain instances in a CSV")
    read = report.read
    if read is None:
        return
    if read.images_without_instances:
        console.print(f"{read.images_without_instances} images have no instance")
    if read.crowd_regions:
        console.print(f"{read.crowd_regions} instances are crowd regions, on which nothing trains")
    if read.empty_masks:
        console.print(f"{read.empty_masks} instances have an empty mask, on which nothing trains")
    for note in read.notes:
        console.print(note)
    if read.size_findings:
        console.print(_size_table(read.size_findings))
    if read.skipped_rows:
        console.print(f"{read.skipped_rows} bad rows skipped, listed in {read.skipped_file}")


def _size_table(findings: tuple[SizeFinding, ...]) -> Table:
    """Lay out the first ``_MOST_FINDINGS`` findings, repaired ones first."""
    title = f"{len(findings)} images are annotated with another size than their images have"
    if any(finding.annotated_hw == finding.image_hw for finding in findings):
        title += ", or turned"
    table = Table("image", "annotated H x W", "image H x W", "done", title=title)
    ordered = sorted(findings, key=lambda finding: (not finding.repaired, finding.image_id))
    for finding in ordered[:_MOST_FINDINGS]:
        table.add_row(
            finding.image_id,
            "{} x {}".format(*finding.annotated_hw),
            "{} x {}".format(*finding.image_hw),
            describe_outcome(finding, repaired="repaired: exchanged"),
        )
    if len(ordered) > _MOST_FINDINGS:
        table.add_row(f"and {len(ordered) - _MOST_FINDINGS} more", "", "", "")
    return table


if __name__ == "__main__":
    main()
