"""Errors: what each kind costs, in cases that are known and beside a plain way."""

from __future__ import annotations

import numpy as np
import pytest

from src.metrics.competition import AVERAGINGS, ImageInstances, image_score, match_instances
from src.metrics.errors import (
    BACKGROUND,
    BANDS,
    DUPLICATE,
    GROUPS,
    KINDS,
    MASK_BANDS,
    MISSED,
    POOR_MASK,
    WRONG_CLASS,
    ErrorAccumulator,
    _overlaps,
    find_errors,
    fixed_counts,
)
from src.rle import Bitmasks
from tests.helpers.plain_metric import image_values

SIZE_HW = (16, 64)


def strip(start, stop, row=0):
    """Pixels of one row, so that an IoU is a ratio of lengths."""
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[row, start:stop] = True
    return mask


def make_objects(objects):
    masks = np.array([mask for _, mask in objects], dtype=bool).reshape(-1, *SIZE_HW)
    return ImageInstances("a", tuple(key for key, _ in objects), Bitmasks.pack(masks))


def make_report(ground_truth, prediction, averaging="pooled"):
    accumulator = ErrorAccumulator(averaging=averaging)
    sides = make_objects(ground_truth), make_objects(prediction)
    accumulator.add(*sides, match_instances(*sides))
    return accumulator.result()


SHOE = (23, strip(0, 20))
BAG = (24, strip(30, 50))
# what is wrong with the shoe, the bag being right, and by how much its repair raises the score
CASES = {
    MISSED: ([BAG], {MISSED: 1 / 2}),
    # a bag over the shoe: fixed, all is right
    WRONG_CLASS: ([(9, strip(0, 20)), BAG], {WRONG_CLASS: 2 / 3}),
    # 9 of 20 pixels of the shoe again, where it is found
    DUPLICATE: ([SHOE, (23, strip(0, 9)), BAG], {DUPLICATE: 1 / 3}),
    "duplicate of another class": ([SHOE, (9, strip(0, 11)), BAG], {DUPLICATE: 1 / 3}),
    BACKGROUND: ([SHOE, (23, strip(40, 60, row=9)), BAG], {BACKGROUND: 1 / 3}),
    # 2 of 20 pixels are no more than 0.1
    "hardly any of it": ([(23, strip(0, 2)), BAG], {MISSED: 1 / 3, BACKGROUND: 1 / 6}),
    BANDS[0]: ([(23, strip(0, 10)), BAG], {BANDS[0]: 2 / 3}),  # IoU 0.50: no hit
    BANDS[1]: ([(23, strip(0, 13)), BAG], {BANDS[1]: 0.7 * 2 / 3}),  # 0.65: hits at 3 thresholds
    BANDS[2]: ([(23, strip(0, 16)), BAG], {BANDS[2]: 0.4 * 2 / 3}),  # 0.80: at 6
    BANDS[3]: ([(23, strip(0, 19)), BAG], {BANDS[3]: 0.1 * 2 / 3}),  # 0.95: at 9
}


@pytest.mark.parametrize("name", CASES)
def test_contribution_of_each_kind(name):
    prediction, gains = CASES[name]
    report = make_report([SHOE, BAG], prediction)
    found = {kind: report.gain(kind) for kind in KINDS if report.counts[kind]}
    assert found == pytest.approx(gains)
    assert report.counts[POOR_MASK] == sum(report.counts[band] for band in BANDS)
    assert report.gain(POOR_MASK) == pytest.approx(sum(gains.get(band, 0) for band in BANDS))


def test_pairs_that_make_an_error_are_those_of_all_pairs():
    random = np.random.default_rng(0)
    strips = [(int(key), int(a), int(a + n)) for key, a, n in random.integers(0, 20, (80, 3))]
    strips += [(1, 0, 40), (1, 0, 4), (2, 0, 20), (1, 0, 41), (1, 0, 0)]  # IoU of 0.1 and of 0.5
    truth, found = (
        make_objects([(key % 3, strip(start, stop)) for key, start, stop in side])
        for side in (strips[::2], strips[1::2])
    )
    is_free = random.random(len(found)) < 0.8
    wanted = []
    for row, true_mask in enumerate(truth.bitmasks.unpack()):
        for column, mask in enumerate(found.bitmasks.unpack()):
            iou = (true_mask & mask).sum() / max((true_mask | mask).sum(), 1)
            least = 0.1 if truth.class_keys[row] == found.class_keys[column] else 0.5
            if is_free[column] and iou > least:
                wanted.append((row, column, iou))
    pairs = zip(*(one.tolist() for one in _overlaps(truth, found, is_free)), strict=True)
    assert [*pairs] == wanted
    assert len(wanted) > 50


def test_gains_of_classes_and_sizes_are_those_of_their_errors():
    large = (1, np.ones(SIZE_HW, dtype=bool))  # 1024 pixels: medium
    report = make_report([SHOE, large], [(2, strip(0, 5, row=8))], averaging="per_class")
    # the shoe found: 1/3 of 3 classes; so for the large one; class 2 gone: nothing is right yet
    assert report.by_class[23] == pytest.approx(dict.fromkeys(GROUPS, 0) | {MISSED: 1 / 3})
    assert report.by_class[1][MISSED] == pytest.approx(1 / 3)
    assert report.by_class[2][BACKGROUND] == 0
    assert report.by_size["small"][MISSED] == pytest.approx(1 / 3)
    assert report.by_size["medium"][MISSED] == pytest.approx(1 / 3)
    assert report.by_size["large"] == dict.fromkeys(GROUPS, 0)
    assert report.gain(MISSED) == pytest.approx(2 / 3)


def test_an_image_without_objects_and_one_without_errors():
    assert make_report([], []).gain(MISSED) == 0
    assert make_report([], []).score == 1
    only_wrong = make_report([], [SHOE])
    assert (only_wrong.score, only_wrong.gain(BACKGROUND)) == (0, 1)
    right = make_report([SHOE, BAG], [SHOE, BAG])
    assert (right.score, sum(right.counts.values())) == (1, 0)


def random_sides(seed):
    """Blobs of a few classes: true ones of a class disjoint, predictions near them or anywhere."""
    random = np.random.default_rng(seed)
    ground_truth, prediction = [], []
    taken = {key: np.zeros(SIZE_HW, dtype=bool) for key in range(3)}
    for _ in range(random.integers(0, 6)):
        key, start = int(random.integers(3)), int(random.integers(0, 40))
        mask = strip(start, start + int(random.integers(4, 24)), row=int(random.integers(2)))
        if not (mask & taken[key]).any():
            taken[key] |= mask
            ground_truth.append((key, mask))
    for _ in range(random.integers(0, 8)):
        key, start = int(random.integers(3)), int(random.integers(0, 40))
        mask = strip(start, start + int(random.integers(4, 24)), row=int(random.integers(2)))
        if ground_truth and random.random() < 0.8:
            near, true_mask = ground_truth[random.integers(len(ground_truth))]
            mask = np.roll(true_mask, int(random.integers(-5, 6)), axis=1)
            key = near if random.random() < 0.7 else key
        prediction.append((key, mask))
    return ground_truth, prediction


def plain_errors(ground_truth, prediction):
    """(kind, true index, predicted index), written from the definitions with bitmaps."""
    iou = [
        [(true & guess).sum() / (true | guess).sum() for _, guess in prediction]
        for _, true in ground_truth
    ]
    pairs = [
        (-iou[i][j], i, j)
        for i, (true_key, _) in enumerate(ground_truth)
        for j, (key, _) in enumerate(prediction)
        if iou[i][j] > (0.1 if key == true_key else 0.5)
    ]
    is_match = [ground_truth[i][0] == prediction[j][0] and -value > 0.5 for value, i, j in pairs]
    errors, used_truth, used_prediction = [], set(), set()
    for wanted in (True, False):
        for value, i, j in sorted(
            pair for pair, match in zip(pairs, is_match, strict=True) if match == wanted
        ):
            if i in used_truth or j in used_prediction:
                continue
            used_truth.add(i)
            used_prediction.add(j)
            if ground_truth[i][0] != prediction[j][0]:
                errors.append((WRONG_CLASS, i, j))
            for band, (low, high) in zip(BANDS, MASK_BANDS, strict=True):
                if ground_truth[i][0] == prediction[j][0] and low < -value <= high:
                    errors.append((band, i, j))
    for j in set(range(len(prediction))) - used_prediction:
        over = any(j == other for _, _, other in pairs)
        errors.append((DUPLICATE if over else BACKGROUND, None, j))
    errors += [(MISSED, i, None) for i in set(range(len(ground_truth))) - used_truth]
    return errors


def put_right(ground_truth, prediction, errors):
    """The submission without these errors."""
    objects = dict(enumerate(prediction))
    for kind, i, j in errors:
        if kind in (DUPLICATE, BACKGROUND):
            del objects[j]
        elif kind == MISSED:
            objects[f"new {i}"] = ground_truth[i]
        else:
            objects[j] = ground_truth[i]
    return list(objects.values())


@pytest.mark.parametrize("averaging", AVERAGINGS)
def test_gains_equal_scoring_the_repaired_submission(averaging):
    seen = set()
    for seed in range(60):
        ground_truth, prediction = random_sides(seed)
        report = make_report(ground_truth, prediction, averaging)
        errors = plain_errors(ground_truth, prediction)
        before = np.mean(image_values(ground_truth, prediction, averaging))
        for kind in KINDS:
            own = [error for error in errors if error[0] == kind]
            after = np.mean(
                image_values(ground_truth, put_right(ground_truth, prediction, own), averaging)
            )
            assert report.counts[kind] == len(own)
            assert report.gain(kind) == pytest.approx(after - before, abs=1e-12), (seed, kind)
            seen |= {kind} if own else set()
    assert seen == set(KINDS)


@pytest.mark.parametrize("averaging", AVERAGINGS)
def test_no_repair_lowers_the_score_and_all_together_make_it_one(averaging):
    for seed in range(60):
        ground_truth, prediction = (make_objects(side) for side in random_sides(seed))
        matches = match_instances(ground_truth, prediction)
        errors = find_errors(ground_truth, prediction, matches)
        score = image_score(matches.counts(), averaging)
        for error in errors:
            assert image_score(fixed_counts(matches.counts(), [error]), averaging) >= score
        right = fixed_counts(matches.counts(), errors)
        assert image_score(right, averaging) == 1
        assert set(right.class_keys) == set(ground_truth.class_keys)
