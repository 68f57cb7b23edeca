"""Jobs of a sweep that submitit runs, as processes of this machine or on SLURM: their failures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from src.errors import InputError

MAX_SHOWN = 3


def explain_failed_jobs(error: BaseException) -> InputError | None:
    """Wait for the other jobs of a sweep, and return a line on those that failed.

    Hydra's launcher gives up at the first one that did, though the others run on.

    Args:
        error: Any exception; None is returned for one that is not the launcher's.
    """
    jobs = _jobs_of(error) if type(error).__module__.startswith("submitit.") else None
    if not jobs:
        return None
    reasons: dict[str, list[int]] = {}
    for number, job in enumerate(jobs, start=1):
        try:
            job.results()
        except Exception as own:  # what a job raised, or what became of it
            reasons.setdefault(_reason(job, own), []).append(number)
    shown = [
        f"job {', '.join(map(str, numbers))}: {reason} (logs: {jobs[numbers[0] - 1].paths.folder})"
        for reason, numbers in list(reasons.items())[:MAX_SHOWN]
    ]
    more = "; and others" if len(reasons) > MAX_SHOWN else ""
    num_failed = sum(map(len, reasons.values()))
    return InputError(
        f"{num_failed} of {len(jobs)} jobs failed: {'; '.join(shown)}{more}; the same command does "
        "what is missing"
    )


def _jobs_of(error: BaseException) -> list[Any] | None:
    """Return the jobs of the launcher's function that an exception went through."""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name == "launch" and Path(code.co_filename).name == "submitit_launcher.py":
            return list(trace.tb_frame.f_locals.get("jobs", ()))
        trace = trace.tb_next
    return None


def _reason(job: Any, error: Exception) -> str:
    """Return why a job failed: its own message, or the last line of its traceback."""
    for task in [*job._sub_jobs, job]:
        for line in reversed((task.stderr() or "").splitlines()):
            if line.startswith("error: "):
                return line.removeprefix("error: ")
    if type(error).__name__ == "UncompletedJobError":
        return f"it ended without a result ({job.state.lower()})"
    _, *traces = re.split(r"\n-{10,}\n", str(error))
    return "".join(traces[:1]).strip().rpartition("\n")[2] or type(error).__name__
