"""Runs a function over tasks in several processes, results in order, few of them in memory."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

import cv2

from src.processes import die_with_parent, hidden_from_children

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
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(workers, len(first)), context, initializer=_begin_worker)
    waiting: deque[Future[R]] = deque()
    try:
        with hidden_from_children():  # processes start with the first tasks
            waiting.extend(pool.submit(function, task) for task in first)
        for task in islice(queue, 2 * workers):
            waiting.append(pool.submit(function, task))
        while waiting:
            yield waiting.popleft().result()
            for task in islice(queue, 1):
                waiting.append(pool.submit(function, task))
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # what one has half-drawn is nobody's any more
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    cv2.setNumThreads(1)
    die_with_parent()
