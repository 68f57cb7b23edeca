"""The competition's score by plain loops over bitmaps, written from its rule; nothing of src."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

Objects = list[tuple[object, np.ndarray]]  # class and bitmap (H, W) bool

# Twentieths, so that "strictly greater" is decided in whole numbers.
TWENTIETHS = (10, 11, 12, 13, 14, 15, 16, 17, 18, 19)


def resize_nearest(mask: np.ndarray, height: int = 512, width: int = 512) -> np.ndarray:
    """Source index = floor(i * source / target), one pixel after the other."""
    rows = [i * mask.shape[0] // height for i in range(height)]
    columns = [i * mask.shape[1] // width for i in range(width)]
    return mask[rows][:, columns]


def decode(text: str, height: int, width: int) -> np.ndarray:
    """Draw ``start length ...``: 1-based, top to bottom, then left to right."""
    pixels = np.zeros(height * width, dtype=bool)
    values = [int(value) for value in text.split()]
    for start, length in zip(values[::2], values[1::2], strict=True):
        pixels[start - 1 : start - 1 + length] = True
    return pixels.reshape(width, height).T


def true_positives(
    ground_truth: list[np.ndarray], prediction: list[np.ndarray], twentieths: int
) -> int:
    """TP of one class at one threshold: greedy by falling IoU, one to one, IoU > threshold."""
    pairs = []
    for i, true_mask in enumerate(ground_truth):
        for j, predicted_mask in enumerate(prediction):
            common = int(np.logical_and(true_mask, predicted_mask).sum())
            either = int(np.logical_or(true_mask, predicted_mask).sum())
            if 20 * common > twentieths * either:
                pairs.append((-Fraction(common, either), i, j))
    used_truth, used_prediction = set(), set()
    for _, i, j in sorted(pairs):
        if i not in used_truth and j not in used_prediction:
            used_truth.add(i)
            used_prediction.add(j)
    return len(used_truth)


def image_values(ground_truth: Objects, prediction: Objects, averaging: str) -> list[float]:
    """value(t) of one image at the ten thresholds."""
    classes = {key for key, _ in ground_truth} | {key for key, _ in prediction}
    if not classes:
        return [1.0] * len(TWENTIETHS)
    values = []
    for twentieths in TWENTIETHS:
        counts = []
        for key in classes:
            true_masks = [mask for its_key, mask in ground_truth if its_key == key]
            predicted_masks = [mask for its_key, mask in prediction if its_key == key]
            tp = true_positives(true_masks, predicted_masks, twentieths)
            counts.append((tp, len(predicted_masks) - tp, len(true_masks) - tp))
        if averaging == "per_class":
            values.append(sum(tp / (tp + fp + fn) for tp, fp, fn in counts) / len(counts))
        else:
            tp, fp, fn = (sum(column) for column in zip(*counts, strict=True))
            values.append(tp / (tp + fp + fn))
    return values


def score(images: list[tuple[Objects, Objects]], averaging: str) -> float:
    """The result: mean over images of the mean over thresholds."""
    scores = [sum(image_values(*pair, averaging)) / len(TWENTIETHS) for pair in images]
    return sum(scores) / len(scores)


def per_class(images: list[tuple[Objects, Objects]]) -> dict[object, float]:
    """For each class the mean of its value over the images that have it on either side."""
    values: dict[object, list[float]] = {}
    for ground_truth, prediction in images:
        for key in {key for key, _ in ground_truth + prediction}:
            own = [[pair for pair in side if pair[0] == key] for side in (ground_truth, prediction)]
            of_class = image_values(own[0], own[1], "per_class")
            values.setdefault(key, []).append(sum(of_class) / len(of_class))
    return {key: sum(of_key) / len(of_key) for key, of_key in values.items()}
