"""The key ``image`` of ``python -m src.predict``: one image or a folder, predicted and drawn."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path, PurePosixPath

from omegaconf import DictConfig
from PIL import Image

from src.annotations.image_files import read_image_rgb
from src.annotations.image_names import file_name_of, find_image, is_image_name
from src.cli.entry_point import to_plain
from src.errors import InputError
from src.io import atomic_path, write_text
from src.postprocess.category_names import names_for
from src.postprocess.mask_source import settings_for
from src.postprocess.pipeline import StoreDetections
from src.postprocess.settings import named_settings
from src.predictions.store import PredictionStore
from src.reporting.drawing import draw_alone, draw_instances, fit
from src.tuning.evaluated_image import as_submitted

log = logging.getLogger(__name__)

LIST_NAME = "image.csv"
# Of the longer edge of a drawing: a small image is enlarged to the first, a large one reduced.
_EDGE_PX = (640, 1600)


def place_image(config: DictConfig) -> None:
    """Take the images of the key ``image`` in place of the test images.

    A file is the only row of a list of ids, as a sample submission has them.

    Raises:
        InputError: There is no such file, it is no image, or another key names images, too.
    """
    path = Path(config.image)
    for key, usual in (("images", None), ("predict_split", "test")):
        if config[key] != usual:
            raise InputError(f"one of image and {key} must be given, got {key}={config[key]}")
    if path.is_dir():
        config.images = str(path)
        return
    if not path.is_file():
        raise InputError(f"image must be an image or a folder of images, got {path}: no such file")
    if not is_image_name(path.name) or '"' in path.name:
        raise InputError(f"image must be an image or a folder of images, got {path}")
    config.images = str(path.parent)
    listed = Path(config.paths.output_dir) / LIST_NAME
    write_text(listed, f'ImageId\n"{path.name}"\n')
    config.datamodule.sample_submission = str(listed)


def write_drawings(config: DictConfig, store: PredictionStore) -> Path:
    """Draw the detections under ``postprocess`` over each image of a store.

    Images that could not be predicted have no drawing.

    Returns:
        The folder of the drawings, beside the store: ``STORE_drawings/NAME.jpg``.
    """
    folder = Path(f"{config.predictions}_drawings")
    categories = names_for(store, None, "")
    settings = named_settings(to_plain(config.postprocess), categories)
    detections = StoreDetections(store, settings_for(settings, store))
    stems = {image_id: str(PurePosixPath(image_id).with_suffix("")) for image_id in detections}
    count = Counter(stems.values())
    for image_id, found in detections.items():
        pixels = read_image_rgb(find_image(config.images, file_name_of(image_id)))
        edge_px = min(max(_EDGE_PX[0], *pixels.shape[:2]), _EDGE_PX[1])
        drawn = draw_alone(as_submitted(found, filler=None), categories.names)
        drawing = draw_instances(fit(pixels, edge_px), drawn.prediction)
        name = image_id if count[stems[image_id]] > 1 else stems[image_id]
        with atomic_path(folder / f"{name.replace('/', '_')}.jpg") as partial:
            Image.fromarray(drawing).save(partial, "JPEG", quality=90)
    log.info("wrote %s: %d drawings", folder, len(detections))
    return folder
