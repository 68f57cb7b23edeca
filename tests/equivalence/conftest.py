"""Gives mmcv its operators before a test module imports mmcv; one thread, so that bits repeat."""

from collections.abc import Iterator

import pytest
import torch

import src.mmdet_bridge.kernels  # noqa: F401


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
