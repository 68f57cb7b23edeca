"""Export stored predictions as COCO results: ``python -m src.export_coco predictions=STORE``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from omegaconf import DictConfig
from rich.progress import track

from src.annotations.categories import check_categories, label_descriptions_from_json
from src.annotations.coco import name_of_image
from src.annotations.image_names import image_path
from src.annotations.json_stream import iterate_members
from src.cli.entry_point import entry_point, to_plain
from src.console import PlainConsole, say
from src.errors import InputError
from src.io import check_writable, refuse_special_file, write_text
from src.postprocess.category_names import names_for
from src.postprocess.pipeline import StepCounts, coco_results
from src.postprocess.settings import named_settings, plain_settings
from src.predictions.store import PredictionStore


def read_image_numbers(path: Path) -> dict[str, int]:
    """Read COCO's id of each image by file name from a file of COCO annotations.

    Raises:
        InputError: No such file, other JSON, a file name that leads out of the image folder, or a
            file name or an id that occurs twice.
    """
    refuse_special_file(path)
    try:
        images = json.loads(path.read_text(encoding="utf-8-sig"))["images"]
        numbers = {}
        for image in images:
            key, name = name_of_image(image)
            if name is None:
                raise KeyError(key)
            numbers[image_path(str(name), key=key)] = int(image["id"])
    except FileNotFoundError:
        raise InputError(f"annotations={path}: no such file") from None
    except IsADirectoryError:
        raise InputError(
            f"annotations must be the COCO JSON whose image ids to use, got the folder {path}; "
            "python -m src.convert makes COCO JSON of a store or of mask images"
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            "annotations must be COCO JSON with images that have id and file_name, got "
            f"{type(error).__name__}: {error} ({path})"
        ) from error
    if len(numbers) < len(images):
        raise InputError(f"file_name must be another one for each image, got one twice ({path})")
    if len(set(numbers.values())) < len(images):
        raise InputError(f"id must be another one for each image, got one twice ({path})")
    return numbers


def number_images(store: PredictionStore, annotations: str | None) -> Mapping[str, int]:
    """Return COCO's id of each image of the store.

    Without a file, images are numbered from 1, as by src.convert. An image id is a file name, or
    one without its suffix, or one without its folders if no other file has that name.
    """
    if annotations is None:
        return {image_id: place for place, image_id in enumerate(store.image_ids, start=1)}
    by_file = read_image_numbers(Path(annotations))
    names: dict[str, int] = {}
    paths = {PurePosixPath(file): number for file, number in by_file.items()}
    for shortened in (
        {path: path.stem for path in paths},
        {path: path.name for path in paths},
        {path: str(path.with_suffix("")) for path in paths},
    ):
        count = Counter(shortened.values())
        names |= {name: paths[path] for path, name in shortened.items() if count[name] == 1}
    names |= by_file
    if missing := [image_id for image_id in store.image_ids if image_id not in names]:
        raise InputError(
            f"annotations must have all {len(store)} images of {store.directory}, got "
            f"{annotations}, which lacks {len(missing)}; the first is {missing[0]!r}"
        )
    return {image_id: names[image_id] for image_id in store.image_ids}


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
    numbers = number_images(store, config.annotations)
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
