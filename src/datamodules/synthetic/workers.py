"""Runs a function over tasks in several processes, results in order, few of them in memory."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

import cv2

T = TypeVar("T")
R = TypeVar("R")


def in_order(function: Callable[[T], R], tasks: Iterable[T], workers: int) -> Iterator[R]:
    """Results of ``function`` for each task, in the order of the tasks.

    At most three results a worker wait to be taken, so memory does not grow with the tasks. With
    one worker nothing is started.
    """
    if workers <= 1:
        before = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            yield from map(function, tasks)
        finally:
            cv2.setNumThreads(before)
        return
    queue = iter(tasks)
    first = list(islice(queue, workers))
    if not first:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(first)), context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        waiting: deque[Future[R]] = deque(pool.submit(function, task) for task in first)
        for task in islice(queue, 2 * workers):
            waiting.append(pool.submit(function, task))
        try:
            while waiting:
                yield waiting.popleft().result()
                for task in islice(queue, 1):
                    waiting.append(pool.submit(function, task))
        finally:
            for future in waiting:
                future.cancel()
