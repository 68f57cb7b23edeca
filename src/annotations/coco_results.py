"""COCO's results: detections with scores, a JSON list, whose images go by numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from src.annotations.coco import COCO, name_of_image
from src.annotations.formats import detect_format
from src.annotations.image_names import image_path
from src.annotations.instances import ImageRecord
from src.errors import InputError
from src.io import refuse_special_file, write_text


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


def number_images(
    image_ids: Sequence[str], annotations: str | Path | None, *, source: str
) -> dict[str, int]:
    """Return COCO's id of each image.

    Without a file, images are numbered from 1, as by src.convert. An image id is a file name, or
    one without its suffix, or one without its folders if no other file has that name.

    Args:
        image_ids: The images.
        annotations: A COCO file that has them; None: none.
        source: Where the images come from, for messages.
    """
    if annotations is None:
        return {image_id: place for place, image_id in enumerate(image_ids, start=1)}
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
    missing = [image_id for image_id in image_ids if image_id not in names]
    if missing:
        raise InputError(
            f"annotations must have all {len(image_ids)} images of {source}, got "
            f"{annotations}, which lacks {len(missing)}; the first is {missing[0]!r}"
        )
    return {image_id: names[image_id] for image_id in image_ids}


def number_images_of(annotations: str | Path, image_ids: Sequence[str]) -> dict[str, int]:
    """Return COCO's id of each annotated image: the file's own, or numbers where it is no COCO."""
    path = Path(annotations)
    is_coco = path.is_file() and detect_format(path) == COCO
    return number_images(image_ids, path if is_coco else None, source=str(path))


def is_results_list(path: Path) -> bool:
    """Return whether a JSON file is a list, as COCO's results are, and no object."""
    refuse_special_file(path)
    with path.open("rb") as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read a list of results.

    Raises:
        InputError: The file is no JSON list of objects.
    """
    refuse_special_file(path)
    try:
        results = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON ({error})") from error
    wrong = [n for n, entry in enumerate(results, 1) if not isinstance(entry, dict)]
    if not isinstance(results, list) or wrong:
        raise InputError(f"COCO's results must be a list of objects ({path}, entry {wrong[:1]})")
    return results


def write_as_annotations(
    path: Path, output: Path, *, images: Iterable[ImageRecord], numbers: Mapping[str, int]
) -> Path:
    """Write results as a COCO annotation file, to be read as the annotations are.

    Args:
        path: The results.
        output: The file to write.
        images: The images that the results may be of.
        numbers: COCO's id of each image, by image id.

    Raises:
        InputError: The results are no list, or one has no image of these.
    """
    known = {
        numbers[image.image_id]: {
            "id": numbers[image.image_id],
            "file_name": image.file_name,
            "height": image.height_px,
            "width": image.width_px,
        }
        for image in images
        if image.image_id in numbers
    }
    results = read_results(path)
    for place, entry in enumerate(results, start=1):
        if entry.get("image_id") not in known:
            raise InputError(
                f"image_id must be the id of an image of the annotations, got "
                f"{entry.get('image_id')!r:.60} ({path}, entry {place})"
            )
    annotations = [
        {"id": place, "iscrowd": 0} | {k: v for k, v in entry.items() if k not in ("id", "bbox")}
        for place, entry in enumerate(results, start=1)
    ]
    write_text(output, json.dumps({"images": list(known.values()), "annotations": annotations}))
    return output
