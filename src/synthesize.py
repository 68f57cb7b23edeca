"""Draw images of dressed figures with their ground truth: ``python -m src.synthesize``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from src.cli.entry_point import entry_point, to_plain
from src.cli.locks import working_in
from src.console import PlainConsole
from src.io import check_writable
from src.synthetic import synthesize, synthesize_csv
from src.synthetic.request import parse_categories, parse_image_size
from src.validation import check_value, nullable, whole

_IMAGE_SIZE, _CSV_SIZE = (768, 1536), (3000, 6000)


@entry_point("synthesize", lock=lambda config: working_in(config.output, key="output"))
def main(config: DictConfig) -> None:
    """Draw the images, or write the CSV alone, with a progress bar."""
    keys = to_plain(config)
    output, csv_only = keys.pop("output"), keys.pop("csv_only")
    workers = _workers(keys.pop("num_workers"))
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = PlainConsole(stderr=True)
    what = "rows" if csv_only else "images"
    progress = Progress(TextColumn(what), *columns, console=console)
    task = progress.add_task(what, total=None)

    def show(done: int, total: int) -> None:
        progress.start()  # not before the request is checked
        progress.update(task, completed=done, total=total)

    try:
        made = _run(keys, output, bool(csv_only), workers, show)
    finally:
        if progress.live.is_started:
            progress.stop()
    PlainConsole(soft_wrap=True).print(f"{output}: {made}")


def _run(
    keys: dict[str, Any],
    output: str,
    csv_only: bool,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> str:
    rows, image_size = keys.pop("num_rows"), keys.pop("image_size")
    categories = parse_categories(keys.pop("categories"))
    if not Path(output).is_file():  # a file is refused below
        check_writable(Path(output) / "synthesis.json")
    if csv_only:
        written = synthesize_csv(
            output,
            rows,
            seed=keys["seed"],
            image_size=parse_image_size(image_size, _CSV_SIZE),
            attributes_share=keys["attributes_share"],
            workers=workers,
            on_progress=on_progress,
        )
        return f"train.csv with {rows} rows" + ("" if written else ", there already")
    drawn = synthesize(
        output,
        image_size=parse_image_size(image_size, _IMAGE_SIZE),
        categories=categories,
        workers=workers,
        on_progress=on_progress,
        **keys,
    )
    total = f"{keys['num_train_images']} training images, {keys['num_test_images']} test images"
    return f"{total}; {drawn} drawn now" if drawn else f"{total}; all there already"


def _workers(asked: int | None) -> int:
    check_value("num_workers", asked, nullable(whole(1), null="for all cores"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return cores if asked is None else asked


if __name__ == "__main__":
    main()
