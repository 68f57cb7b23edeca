"""Which orders of steps are legal, and why others are not."""

from __future__ import annotations

import re
from itertools import islice, permutations
from typing import Any

import pytest

from src.errors import InputError
from src.postprocess.pipeline import StepCounts
from tests.helpers.candidates import DEFAULT_STEPS, make_settings


def check(steps: Any) -> tuple[str, ...]:
    return make_settings(steps=steps).steps


def test_the_default_order_and_shorter_ones_are_legal() -> None:
    assert check(list(DEFAULT_STEPS)) == DEFAULT_STEPS
    assert check(["masks"]) == ("masks",)
    assert check(["nms", "score", "masks", "suppress_overlaps", "cap"])[-1] == "cap"
    assert check(["cap", "nms", "masks", "min_area", "suppress_overlaps", "score", "remove"])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("score", "postprocess.steps must be a list of score, nms, cap, remove, max_per"),
        (["masks", "blur"], "postprocess.steps must be of score, nms, cap, remove, "),
        (["masks", 3], "postprocess.steps must be of score, nms, cap, remove, max_per_class, "),
        (["score", "masks", "score"], "postprocess.steps must have score once, got [score, masks,"),
        (
            ["score", "nms"],
            "postprocess.steps must have masks, of which a submission is made, got [score, nms]",
        ),
        (
            ["suppress_overlaps", "masks"],
            "postprocess.steps must have suppress_overlaps after masks, got [suppress_overlaps, "
            "masks]: overlaps are those of masks",
        ),
        (
            ["score", "min_area", "masks"],
            "postprocess.steps must have min_area after masks, got [score, min_area, masks]: areas "
            "are those of masks",
        ),
        (
            ["score", "masks", "nms"],
            "postprocess.steps must have nms before masks, got [score, masks, nms]: NMS compares "
            "boxes, and masks are made of what it leaves",
        ),
    ],
)
def test_orders_that_cannot_work_are_refused_with_the_reason(steps: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        check(steps)


def test_an_order_is_either_legal_or_refused_for_one_of_the_reasons() -> None:
    for steps in islice(permutations(DEFAULT_STEPS), 0, None, 41):
        place = {step: steps.index(step) for step in steps}
        can_work = (
            place["nms"] < place["masks"]
            and place["masks"] < place["suppress_overlaps"]
            and place["masks"] < place["min_area"]
        )
        if can_work:
            assert check(steps) == steps
        else:
            with pytest.raises(
                InputError,
                match=r"must have (nms before|suppress_overlaps after|min_area after) masks",
            ):
                check(steps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suppress_overlaps": True}, "suppress_overlaps for postprocess.suppress_overlaps=True"),
        ({"min_area_px": 20}, "min_area for postprocess.min_area_px=20"),
        ({"max_per_class": 2}, "max_per_class for postprocess.max_per_class=2"),
        ({"remove_categories": [1]}, "remove for postprocess.remove_categories=[1]"),
        (
            {"remove_categories": ["attribute_classes"]},
            "remove for postprocess.remove_categories=['attribute_classes']",
        ),
        (
            {"score_threshold_per_class": {1: 0.5}},
            "score for postprocess.score_threshold_per_class={1: 0.5}",
        ),
    ],
)
def test_a_rule_without_its_step_is_refused(changes: dict[str, Any], message: str) -> None:
    whole = f"postprocess.steps must have {message}, got [nms, cap, masks]"
    with pytest.raises(InputError, match=f"^{re.escape(whole)}$"):
        make_settings(steps=["nms", "cap", "masks"], **changes)


def test_the_first_step_that_took_some_has_the_verb_behind_its_whole_name() -> None:
    counts = StepCounts()
    counts.add(400, {"nms with cap": 800, "score": 1})
    assert (
        str(counts) == "1,201 candidates: nms with cap took 800, score 1; 400 detections are left"
    )
