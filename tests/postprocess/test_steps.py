"""Which orders of steps are legal, and why others are not."""

from __future__ import annotations

import re
from itertools import islice, permutations
from typing import Any

import pytest

from src.errors import InputError
from src.postprocess.steps import DEFAULT_STEPS, check_steps
from tests.helpers.candidates import make_settings


def test_the_default_order_and_shorter_ones_are_legal() -> None:
    assert check_steps(list(DEFAULT_STEPS)) == DEFAULT_STEPS
    assert check_steps(["masks"]) == ("masks",)
    assert check_steps(["nms", "score", "masks", "suppress_overlaps", "cap"])[-1] == "cap"
    assert check_steps(["cap", "nms", "masks", "min_area", "suppress_overlaps", "score", "remove"])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("score", "postprocess.steps='score': a list of steps, as [score, nms, cap, remove, "),
        (["masks", "blur"], "postprocess.steps: 'blur' is no step; there are [score, nms, cap, "),
        (["masks", 3], "postprocess.steps: 3 is no step; there are [score, "),
        (["score", "masks", "score"], "postprocess.steps: score stands there twice; once is legal"),
        (["score", "nms"], "postprocess.steps: masks is missing; a submission is made of masks"),
        (
            ["suppress_overlaps", "masks"],
            "postprocess.steps: suppress_overlaps stands before masks, which cannot work: "
            "overlaps are those of masks",
        ),
        (
            ["score", "min_area", "masks"],
            "postprocess.steps: min_area stands before masks, which cannot work: areas are those "
            "of masks",
        ),
        (
            ["score", "masks", "nms"],
            "postprocess.steps: nms stands after masks, which cannot work: NMS compares boxes, and "
            "masks are made of what it leaves",
        ),
    ],
)
def test_orders_that_cannot_work_are_refused_with_the_reason(steps: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        check_steps(steps)


def test_an_order_is_either_legal_or_refused_for_one_of_the_reasons() -> None:
    for steps in islice(permutations(DEFAULT_STEPS), 0, None, 41):
        place = {step: steps.index(step) for step in steps}
        can_work = (
            place["nms"] < place["masks"]
            and place["masks"] < place["suppress_overlaps"]
            and place["masks"] < place["min_area"]
        )
        if can_work:
            assert check_steps(steps) == steps
        else:
            with pytest.raises(InputError, match="which cannot work"):
                check_steps(steps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suppress_overlaps": True}, "postprocess.suppress_overlaps=True without the step suppr"),
        ({"min_area_px": 20}, "postprocess.min_area_px=20 without the step min_area in"),
        ({"max_per_class": 2}, "postprocess.max_per_class=2 without the step max_per_class in"),
        ({"remove_categories": [1]}, r"postprocess.remove_categories=[1] without the step remove"),
        (
            {"remove_categories": ["attribute_classes"]},
            "postprocess.remove_categories=['attribute_classes'] without the step remove",
        ),
        (
            {"score_threshold_per_class": {1: 0.5}},
            "postprocess.score_threshold_per_class={1: 0.5} without the step score",
        ),
    ],
)
def test_a_rule_without_its_step_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        make_settings(steps=["nms", "cap", "masks"], **changes)
