"""Choose validation images: ``python -m src.split annotations=train.csv``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.table import Table

from src.annotations.formats import ReadingOptions
from src.annotations.mask_settings import MaskImageSettings
from src.cli.entry_point import entry_point, to_plain
from src.console import PlainConsole
from src.datamodules.annotations import open_annotations
from src.datamodules.split import (
    ClassShare,
    Split,
    class_shares,
    make_split,
    total_deviation,
    write_split,
)
from src.io import check_writable, user_cache_directory


def shares_table(split: Split, shares: Sequence[ClassShare], names: dict[int, str]) -> Table:
    """Lay out each class's share of the images in both parts, and the total deviation."""
    table = Table(
        title=f"{len(split.validation)} validation and {len(split.train)} training images",
        caption=f"total deviation: {100 * total_deviation(shares):.2f} percentage points",
    )
    table.add_column("class")
    for heading in ("images", "validation %", "training %", "deviation"):
        table.add_column(heading, justify="right")
    for share in shares:
        shares_of_images = (share.validation_share, share.train_share, share.deviation)
        table.add_row(
            f"{share.category_id} {names.get(share.category_id, '')}".strip(),
            str(share.images),
            *(f"{100 * value:.2f}" for value in shares_of_images),
        )
    return table


def split_annotations(config: DictConfig) -> Split:
    """Make the split, save it, and show the shares of the classes."""
    annotations = Path(config.annotations)
    check_writable(config.output)
    store = open_annotations(
        annotations,
        Path(config.cache_dir or annotations.parent / ".cache"),
        ReadingOptions(
            images_directory=config.images,
            exif=config.exif,
            on_bad_rows=config.on_bad_rows,
            duplicates=config.duplicates,
            label_descriptions=config.label_descriptions,
            mask_images=MaskImageSettings.from_config(to_plain(config.mask_images)),
        ),
        fallback_directory=user_cache_directory(),
    )
    image_ids = [record.image_id for record in store.images]
    category_sets = store.category_sets()
    split = make_split(
        image_ids=image_ids,
        category_sets=category_sets,
        num_validation_images=config.num_validation_images,
        seed=config.seed,
        annotations=str(annotations),
    )
    write_split(split, Path(config.output))
    names = {category.id: category.name for category in store.labels.categories}
    shares = class_shares(split, image_ids=image_ids, category_sets=category_sets)
    PlainConsole(file=sys.stdout).print(shares_table(split, shares, names))
    print(f"wrote {config.output}")
    return split


main = entry_point("split")(split_annotations)

if __name__ == "__main__":
    main()
