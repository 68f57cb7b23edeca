"""Confusion table: instances by their class and the class of the detection that means them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from src.metrics.competition import ClassKey, split_key
from src.metrics.errors import BACKGROUND, DUPLICATE, KINDS, MISSED
from src.metrics.inputs import class_key_text
from src.reporting.drawing import short_name
from src.reporting.gallery import NONE, Gallery
from src.reporting.palette import category_colour

SHOWN_CLASSES = 50


@dataclass(frozen=True, slots=True)
class ConfusionTable:
    """Numbers of instances and detections by class of the instance and of the detection."""

    class_keys: tuple[ClassKey, ...]  # C, of rows and columns
    counts: npt.NDArray[np.int64]  # (C, C): instances of a row that a column's detection means
    missed: npt.NDArray[np.int64]  # (C,) instances without a detection
    duplicates: npt.NDArray[np.int64]  # (C,) detections of what another one has found
    background: npt.NDArray[np.int64]  # (C,) any other detections


def confusion_table(gallery: Gallery) -> ConfusionTable:
    """Count pairs of all images; every instance and every detection is in one cell."""
    keys = sorted(gallery.class_keys, key=lambda key: split_key(key))
    place = {gallery.index_of(key): row for row, key in enumerate(keys)}
    size = len(keys)
    counts = np.zeros((size, size), dtype=np.int64)
    missed, duplicates, background = (np.zeros(size, dtype=np.int64) for _ in range(3))
    for image in gallery.images.values():
        for (kind, true, predicted, _), number in image.pairs.items():
            if true != NONE and predicted != NONE:
                counts[place[true], place[predicted]] += number
            elif true != NONE:
                missed[place[true]] += number
            elif kind != NONE and KINDS[kind] == DUPLICATE:
                duplicates[place[predicted]] += number
            else:
                background[place[predicted]] += number
    return ConfusionTable(tuple(keys), counts, missed, duplicates, background)


def confusion_section(gallery: Gallery) -> dict[str, Any]:
    """Return the values of the template's table; of many classes, those with the most errors."""
    table = confusion_table(gallery)
    off = table.counts.sum(axis=0) + table.counts.sum(axis=1) - 2 * np.diag(table.counts)
    errors = off + table.missed + table.duplicates + table.background
    shown = np.sort(np.argsort(-errors, kind="stable")[:SHOWN_CLASSES]).tolist()
    ids = [class_key_text(key) for key in table.class_keys]
    names = [_name(key, gallery) for key in table.class_keys]
    totals = table.counts.sum(axis=1) + table.missed

    def cell(count: int, total: int, fragment: str, title: str, *, is_same: bool = False) -> Any:
        heat = 0 if not count else max(1, round(9 * count / max(1, total)))
        return {
            "count": int(count),
            "heat": min(9, heat),
            "fragment": fragment,
            "title": f"{title}: {count}",
            "is_same": is_same,
        }

    rows = []
    for row in shown:
        cells = [
            cell(
                int(table.counts[row, column]),
                int(totals[row]),
                f"true={ids[row]}&predicted={ids[column]}",
                f"{names[row]}, detected as {names[column]}",
                is_same=row == column,
            )
            for column in shown
        ]
        fragment = f"true={ids[row]}&error={MISSED}"
        missed = cell(int(table.missed[row]), int(totals[row]), fragment, f"{names[row]}, missed")
        colour = category_colour(split_key(table.class_keys[row])[0])
        rows.append({"name": names[row], "colour": colour, "cells": [missed, *cells]})
    without = [
        {
            "name": kind,
            "cells": [
                cell(
                    int(counts[column]),
                    int(counts.sum()),
                    f"predicted={ids[column]}&error={kind}",
                    f"{kind}, detected as {names[column]}",
                )
                for column in shown
            ],
        }
        for kind, counts in ((DUPLICATE, table.duplicates), (BACKGROUND, table.background))
    ]
    return {
        "columns": [{"name": names[column]} for column in shown],
        "rows": rows,
        "without": without,
        "more": len(ids) - len(shown),
    }


def _name(key: ClassKey, gallery: Gallery) -> str:
    category, attributes = split_key(key)
    name = short_name(gallery.category_names.get(category, str(category)))
    return " ".join(map(str, (name, *attributes)))
