"""Loader workers that are killed, hang, or find no shared memory: one line, and no endless wait."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker  # noqa: F401  # started before workers are
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch.utils.data import Dataset

from src.cli.entry_point import one_line
from src.cli.preflight import describe_ended_rank, explain_failure
from src.datamodules import loading
from src.datamodules.loading import check_shared_memory, explain_loader_failure, make_loader
from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import make_sample


class Images(Dataset[Any]):
    """Gray images; what a test does to a worker happens when it makes the third."""

    def __init__(self, happens: Callable[[], None], edge_px: int = 64) -> None:
        self.happens, self.edge_px = happens, edge_px

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        if index == 2:
            self.happens()
        pixels = np.zeros((self.edge_px, self.edge_px, 3), dtype=np.uint8)
        return make_sample(
            image=pixels, image_id=str(index), image_path="", original_hw=pixels.shape[:2]
        )


def read(loader: Any) -> None:
    try:
        list(loader)
    except (EOFError, ConnectionError):  # the worker was killed while its batch was fetched
        time.sleep(5)  # until torch's handler of SIGCHLD raises
        raise


def read_all(happens: Callable[[], None], *, message: str, **options: Any) -> str:
    """Return the one line that the failure of a loader with two workers becomes."""
    loader = make_loader(
        Images(happens, options.pop("edge_px", 64)),
        batch_size=1,
        num_workers=2,
        prefetch_factor=2,
        persistent_workers=False,
        **options,
    )
    with pytest.raises((RuntimeError, InputError), match=message) as caught:
        read(loader)
    failure = caught.value
    if not isinstance(failure, InputError):
        explained = explain_failure(failure, SimpleNamespace(world_size=1))  # type: ignore[arg-type]
        assert explained is not None, failure
        failure = explained
    return one_line(failure)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGBUS, signal.SIGSEGV)),
    ],
)
def test_a_killed_worker_is_named(number: signal.Signals) -> None:
    line = read_all(lambda: os.kill(os.getpid(), number), message="DataLoader worker")
    assert "\n" not in line
    # torch knows the signal where its handler of SIGCHLD could be set, in a main thread
    signalled = re.match(r"loader worker \d+ was ended by a signal \(.+\): ", line)
    assert signalled or re.match(r"loader worker \d+ was ended before its work was done: ", line)
    if signalled:
        assert ("--shm-size" in line) == (number == signal.SIGBUS)
    assert "datamodule.num_workers" in line


@pytest.mark.slow
def test_a_worker_killed_while_its_batch_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ConnectionResetError("Connection reset by peer")

    monkeypatch.setattr("multiprocessing.resource_sharer._ResourceSharer.get_connection", refuse)
    options: dict[str, Any] = {"num_workers": 1, "prefetch_factor": 1, "persistent_workers": False}
    loader = make_loader(Images(lambda: None), batch_size=1, **options)
    with pytest.raises(ConnectionResetError, match="reset by peer") as caught:
        list(loader)
    line = one_line(explain_loader_failure(caught.value))
    assert line.startswith("a loader worker was ended before its work was done: most often the sys")
    assert explain_loader_failure(ConnectionResetError("Connection reset by peer")) is None


def test_a_worker_that_gives_nothing_is_not_waited_for_for_ever() -> None:
    line = read_all(lambda: time.sleep(60), message="timed out after 1 sec", timeout_s=1)
    assert line.startswith(
        "no batch came from the loader's workers in 1 s (datamodule.loader_timeout_s): the disk"
    )


@pytest.fixture
def full_shared_memory() -> Iterator[None]:
    """``/dev/shm`` with less than a MiB left, as far as this file system lets a test fill it."""
    status = os.statvfs("/dev/shm")
    free_bytes = status.f_bavail * status.f_frsize
    if free_bytes > 512 * 2**20:
        pytest.skip(f"/dev/shm has {free_bytes / 2**30:.0f} GiB free, too much to fill in a test")
    ballast = Path("/dev/shm/ballast_of_a_test")
    descriptor = os.open(ballast, os.O_CREAT | os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, free_bytes - 2**19)
        yield
    finally:
        os.close(descriptor)
        ballast.unlink()


@pytest.mark.slow
def test_shared_memory_that_gets_full_ends_the_run(full_shared_memory: None) -> None:
    line = read_all(lambda: None, message="/dev/shm|shared memory|[Bb]us error", edge_px=1024)
    assert line.startswith("/dev/shm is full (")
    assert "docker run --shm-size=2g" in line


@pytest.mark.slow
def test_an_error_of_the_copy_reaches_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full ``/dev/shm``: the worker's own thread, not the one that sends, does the copy."""

    def refuse(_: Any) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space\nx")

    monkeypatch.setattr("torch.Tensor.share_memory_", refuse)
    line = read_all(lambda: None, message="unable to allocate shared memory")
    assert line.startswith(
        "/dev/shm is full (unable to allocate shared memory(shm) for file </torch_1>: No space): "
    )


def test_shared_memory_is_measured_before_workers_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docker = SimpleNamespace(f_bavail=64 * 2**8, f_frsize=2**12)  # 64 MiB, Docker's default
    monkeypatch.setattr(loading.os, "statvfs", lambda _: docker)
    options: dict[str, Any] = {"num_workers": 4, "prefetch_factor": 2, "persistent_workers": False}
    with pytest.raises(
        InputError,
        match=r"/dev/shm must have 117 MiB free for the 9 batches that datamodule\.num_workers "
        r"make ahead, got 64 MiB: enlarge it \(docker run --shm-size=2g",
    ):
        make_loader(
            Images(lambda: None), batch_size=2, largest_sample_bytes=3 * 1200 * 1900, **options
        )
    make_loader(Images(lambda: None), batch_size=2, largest_sample_bytes=3 * 256 * 256, **options)
    make_loader(
        Images(lambda: None),
        batch_size=2,
        largest_sample_bytes=3 * 1200 * 1900,
        **{**options, "num_workers": 0},
    )
    monkeypatch.setattr(loading, "SHARED_MEMORY", tmp_path / "none")
    monkeypatch.undo()
    check_shared_memory(0, batches=1)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-9, "rank 1 (process 77) was ended by SIGKILL: most often the system ran out of memory"),
        (-15, "rank 1 (process 77) was ended by SIGTERM"),
        (3, "rank 1 (process 77) ended with exit code 3; its message stands above"),
    ],
)
def test_an_ended_rank_is_named(code: int, message: str) -> None:
    assert describe_ended_rank(1, 77, code) == message
    process = SimpleNamespace(pid=77, poll=lambda: code)
    launcher = SimpleNamespace(procs=[process])
    trainer: Any = SimpleNamespace(
        world_size=2, global_rank=0, strategy=SimpleNamespace(launcher=launcher)
    )
    lost = RuntimeError(
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [::1]:1234"
    )
    assert str(explain_failure(lost, trainer)) == message
    process.poll = lambda: None
    assert str(explain_failure(lost, trainer)).startswith("rank 0 lost a process of this run ([..")


def test_what_the_end_of_a_worker_was_made_into_is_looked_through() -> None:
    """As by ``inspect``, which was at work when torch's signal handler raised."""
    try:
        try:
            raise RuntimeError("DataLoader worker (pid 77) is killed by signal: Killed. ")
        except RuntimeError as error:
            raise TypeError("unsupported callable") from error
    except TypeError as error:
        line = str(explain_loader_failure(error))
    assert line.startswith("loader worker 77 was ended by a signal (Killed): most often the system")


def test_other_errors_keep_their_traceback() -> None:
    trainer: Any = SimpleNamespace(world_size=2)
    assert explain_failure(RuntimeError("shape mismatch"), trainer) is None
    assert explain_loader_failure(ValueError("DataLoader")) is None
