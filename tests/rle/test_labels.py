"""Masks of label maps, against drawing each label by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from src.rle import decode, encode
from src.rle.labels import encode_labels
from tests.helpers.masks import many_examples, sizes_hw

TYPES = (np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.int64)


@many_examples
@given(st.sampled_from(TYPES), sizes_hw, st.data())
def test_each_label_has_the_mask_that_encoding_it_alone_gives(kind, size_hw, data):
    labels = data.draw(hnp.arrays(kind, size_hw, elements=st.integers(0, 4)))
    values, masks = encode_labels(labels)
    assert values.dtype == kind
    assert_array_equal(values, np.unique(labels))
    assert not masks.problems()
    for value, mask in zip(values, masks, strict=True):
        assert mask == encode(labels == value)
        assert_array_equal(decode(mask), labels == value)


def test_values_of_any_size_and_views_that_are_not_contiguous():
    labels = np.array([[-5, 70_000, 3], [70_000, 70_000, -5]], dtype=np.int32)[:, ::-1]
    values, masks = encode_labels(labels)
    assert values.tolist() == [-5, 3, 70_000]
    assert masks.areas_px().tolist() == [2, 1, 3]
    assert masks.size_hw == (2, 3)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 7), (7, 1)])
def test_a_single_label_is_one_run(size_hw):
    values, masks = encode_labels(np.full(size_hw, 9, dtype=np.uint16))
    assert values.tolist() == [9]
    assert masks.runs.tolist() == [[0, size_hw[0] * size_hw[1]]]
