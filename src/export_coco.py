"""Export stored predictions as COCO results: ``python -m src.export_coco predictions=STORE``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import track

from src.annotations.categories import check_categories, label_descriptions_from_json
from src.annotations.coco_results import number_images
from src.annotations.json_stream import iterate_members
from src.cli.entry_point import entry_point, to_plain
from src.console import PlainConsole, say
from src.io import check_writable, write_text
from src.postprocess.category_names import names_for
from src.postprocess.mask_source import check_fixed_masks
from src.postprocess.pipeline import StepCounts, coco_results
from src.postprocess.settings import named_settings, plain_settings
from src.predictions.store import PredictionStore


def compare_categories(store: PredictionStore, path: Path) -> None:
    """Compare the store's classes with the categories of a COCO file, if it lists any."""
    parts = {
        name: value
        for name, position, value in iterate_members(path, streamed="annotations")
        if name == "categories" and position < 0
    }
    if not parts.get("categories"):
        return
    for note in check_categories(
        store.classes,
        label_descriptions_from_json(parts, where=str(path)),
        instances={},
        model=f"predictions={store.directory}",
        data=str(path),
    ):
        say(f"note: {note}")


@entry_point("export_coco")
def main(config: DictConfig) -> None:
    """Write the detections of a store as COCO results."""
    plain_settings(to_plain(config.postprocess))
    check_writable(config.output)
    store = PredictionStore(config.predictions)
    notes = store.check_whole(partial=config.partial)
    if not config.partial:
        store.check_none_failed()
    categories = names_for(store, None, source=config.predictions)
    settings = named_settings(to_plain(config.postprocess), categories)
    check_fixed_masks(settings, store)
    numbers = number_images(store.image_ids, config.annotations, source=str(store.directory))
    if config.annotations is not None:
        compare_categories(store, Path(config.annotations))
    console, steps = PlainConsole(stderr=True), StepCounts()
    results = []
    for index, image_id in enumerate(
        track(store.image_ids, description="masks", console=console, transient=True)
    ):
        results += coco_results(
            store.candidates(index),
            settings,
            image_number=numbers[image_id],
            category_ids=store.category_ids,
            steps=steps,
        )
    write_text(config.output, json.dumps(results))
    PlainConsole(file=sys.stdout, soft_wrap=True).print(
        f"{config.output}: {len(results)} detections in {len(store)} images\n{steps}"
    )
    for warning in steps.warnings(settings, categories, store.category_ids):
        say(f"warning: {warning}")
    for note in notes:
        say(f"note: {note}")


if __name__ == "__main__":
    main()
