"""Truth beside prediction: labels, matches, colours."""

from __future__ import annotations

import numpy as np
import pytest

from src.metrics.competition import ImageInstances
from src.reporting.drawing import compare_instances
from src.rle import Bitmasks


def test_labels_carry_iou_and_missing_matches_are_marked():
    packed = np.packbits(np.arange(512 * 512) < 1000, bitorder="little")
    part = np.packbits(np.arange(512 * 512) < 800, bitorder="little")
    ground_truth = ImageInstances("a", (1, 2), Bitmasks(np.stack([packed, packed]), (512, 512)))
    prediction = ImageInstances("a", (1, 3), Bitmasks(np.stack([part, packed]), (512, 512)))
    drawn = compare_instances(ground_truth, prediction, {1: "top", 2: "sweater", 3: "cardigan"})
    assert [entry.label for entry in drawn.ground_truth] == ["top", "sweater"]
    assert [entry.label for entry in drawn.prediction] == ["top IoU 0.80", "cardigan"]
    assert [entry.matched for entry in drawn.ground_truth] == [True, False]
    assert [entry.matched for entry in drawn.prediction] == [True, False]
    assert drawn.matched == 1
    assert drawn.ground_truth[0].colour == drawn.prediction[0].colour
    assert [entry.name for entry in drawn.classes] == ["top", "sweater", "cardigan"]
    assert [entry.value for entry in drawn.classes] == pytest.approx([0.6, 0.0, 0.0])


def test_a_label_has_the_confidence_beside_the_iou():
    bits = np.packbits(np.arange(64)[None] < np.array([[20], [16]]), axis=1, bitorder="little")
    ground_truth = ImageInstances("a", (1,), Bitmasks(bits[:1], (8, 8)))
    scores = np.array([0.934, 0.5], dtype=np.float32)
    prediction = ImageInstances("a", (1, 2), Bitmasks(bits[::-1], (8, 8)), scores)
    drawn = compare_instances(ground_truth, prediction, {1: "top", 2: "sweater"})
    assert [one.label for one in drawn.ground_truth] == ["top"]
    assert [one.label for one in drawn.prediction] == ["top 0.93 IoU 0.80", "sweater 0.50"]


def test_attributes_are_shown_beside_the_class_and_not_on_the_drawing():
    bits = np.packbits(np.arange(512 * 512) < 1000, bitorder="little")[None]
    packed = Bitmasks(bits, (512, 512))
    long_name = "headband, head covering, hair accessory"
    ground_truth = ImageInstances("a", ((15, 7, 9),), packed)
    names = {15: long_name, 23: "shoe"}
    drawn = compare_instances(ground_truth, ImageInstances("a", ((15,),), packed), names)
    assert [entry.label for entry in (*drawn.ground_truth, *drawn.prediction)] == ["headband"] * 2
    assert [(entry.name, entry.attributes) for entry in drawn.classes] == [
        ("headband", (7, 9)),
        ("headband", ()),
    ]
    assert drawn.ground_truth[0].colour == drawn.prediction[0].colour, "of the category"


@pytest.mark.parametrize("count", [24, 25])
def test_instances_of_the_only_class_and_many_instances_are_not_named(count):
    bits = np.packbits(np.arange(count)[:, None] == np.arange(64), axis=1, bitorder="little")
    instances = ImageInstances("a", (1,) * count, Bitmasks(bits, (8, 8)))
    few = count == 24
    drawn = compare_instances(instances, instances, {1: "nucleus"})
    assert {entry.label for entry in drawn.ground_truth} == {""}
    assert {entry.label for entry in drawn.prediction} == {"IoU 1.00" if few else ""}
    drawn = compare_instances(instances, instances, {1: "nucleus", 2: "cell"})
    assert {entry.label for entry in drawn.ground_truth} == {"nucleus" if few else ""}
