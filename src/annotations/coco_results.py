"""COCO's results: detections with scores, a JSON list, whose images go by numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from src.annotations.coco import COCO, name_of_image
from src.annotations.formats import detect_format
from src.annotations.image_names import image_path
from src.errors import InputError
from src.io import parse_json, refuse_special_file


def read_image_numbers(path: Path) -> dict[str, int]:
    """Read COCO's id of each image by file name from a file of COCO annotations.

    Raises:
        InputError: No such file, other JSON, a file name that leads out of the image folder, or a
            file name or an id that occurs twice.
    """
    refuse_special_file(path)
    try:
        images = parse_json(path.read_text(encoding="utf-8-sig"))["images"]
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
    except json.JSONDecodeError as error:
        raise InputError(
            f"annotations must be the COCO JSON whose image ids to use, got a file that is no JSON "
            f"({error}) ({path}); python -m src.convert makes COCO JSON of the other formats"
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
