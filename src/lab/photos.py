"""Pixels for the page: images of one folder as JPEG, upright and of a limited size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np

from src.annotations.image_files import read_image_rgb
from src.annotations.image_names import file_name_of, find_image
from src.errors import InputError
from src.lab.workspace import Workspace

LONGEST_EDGE_PX = 2048
_QUALITY = 86
_MAX_BYTES = 128 << 20  # of JPEGs that stay in memory
_AT_ONCE = 2  # images that are decoded side by side


class Photos:
    """Reads images by their index; nothing outside the folder is ever opened."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        images = workspace.inputs.images
        self._directory = None if images is None else Path(images)
        self._known: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._num_bytes = 0
        self._lock, self._decoding = threading.Lock(), threading.Semaphore(_AT_ONCE)

    def jpeg(self, index: int, *, edge_px: int = LONGEST_EDGE_PX) -> bytes | None:
        """Return an image whose longer edge has at most ``edge_px``; None where there is none.

        Raises:
            InputError: The file is no image, or is larger than the limit.
        """
        key = index, min(edge_px, LONGEST_EDGE_PX)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        path = self._path(index)
        if path is None or not path.is_file():
            return None
        with self._decoding:
            encoded = _read(path, key[1])
        with self._lock:
            self._num_bytes += len(encoded) - len(self._known.get(key, b""))
            self._known[key] = encoded
            while self._num_bytes > _MAX_BYTES:
                self._num_bytes -= len(self._known.popitem(last=False)[1])
        return encoded

    def _path(self, index: int) -> Path | None:
        """Return the path of an image, None where no folder is given or the name leaves it."""
        if self._directory is None:
            return None
        image_id, truth = self._workspace.image_ids[index], self._workspace.truth
        name = file_name_of(image_id)
        if truth is not None and image_id in truth:
            name = truth.record(image_id).file_name
        try:
            return find_image(self._directory, name)
        except InputError:
            return None


def _read(path: Path, edge_px: int) -> bytes:
    rgb = read_image_rgb(path, at_least_hw=(edge_px, edge_px))
    height, width = rgb.shape[:2]
    if (longest := max(height, width)) > edge_px:
        size_wh = tuple(max(1, round(side * edge_px / longest)) for side in (width, height))
        rgb = np.asarray(cv2.resize(rgb, size_wh, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    is_made, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not is_made:
        raise InputError(f"{path}: cannot be written as JPEG")
    return encoded.tobytes()
