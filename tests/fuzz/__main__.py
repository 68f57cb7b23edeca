"""Fuzz every parser for minutes: ``make fuzz``, or ``python -m tests.fuzz 10 [TARGET...]``.

Each target of ``tests/helpers/fuzz_targets.py`` gets an equal share of the time, in a process of
its own: under atheris (https://github.com/google/atheris), which follows the coverage of ``src``,
where it is installed, otherwise with random damage. A damaged folder that is neither read nor
refused is kept in ``outputs/fuzz``, and the exit code is 1.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

FAILURES = Path("outputs") / "fuzz"
MOST_BYTES = 256  # of choices
NUM_SEEDS = 50  # first inputs


def try_once(name: str, choices: random.Random) -> None:
    """Try one damaged folder, and keep it if it is neither read nor refused."""
    from tests.helpers.fuzz_targets import try_damaged

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        try_damaged(name, choices, keep=folder)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        kept = FAILURES / f"{name}-{type(error).__name__}-{time.time_ns()}"
        shutil.copytree(folder, kept)
        (kept / "traceback.txt").write_text(traceback.format_exc())
        print(f"{name}: {type(error).__name__}: {str(error)[:200]} (kept in {kept})", flush=True)
        raise
    finally:
        shutil.rmtree(folder)


def fuzz_randomly(name: str, seconds: float) -> None:
    """Damage files at random until the time is over."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        try_once(name, random.Random(f"{name}-{os.getpid()}-{count}"))
        count += 1
    print(f"{name}: {count} damaged inputs, each read or refused", flush=True)


def fuzz_with_coverage(name: str, seconds: float) -> None:
    """Let atheris choose the damage by the coverage of ``src``."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["src"]):
        from tests.helpers.fuzz_targets import try_reading, valid_files
    from tests.helpers.mutations import BytesRandom

    if (error := try_reading(name, valid_files(name))) is not None:
        raise error
    options = [f"-max_total_time={seconds:.0f}", f"-max_len={MOST_BYTES}", "-rss_limit_mb=8192"]
    options += [
        "-timeout=120",
        "-len_control=0",
        f"-artifact_prefix={FAILURES}/",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    FAILURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number in range(NUM_SEEDS):
            (Path(corpus) / str(number)).write_bytes(random.Random(number).randbytes(MOST_BYTES))
        atheris.Setup(["fuzz", *options, corpus], lambda data: try_once(name, BytesRandom(data)))
        atheris.Fuzz()


def main(arguments: list[str]) -> int:
    """Fuzz each target, and return 1 if one failed."""
    from tests.helpers.fuzz_targets import TARGETS

    minutes, names = float(arguments[0]), arguments[1:] or list(TARGETS)
    has_atheris = importlib.util.find_spec("atheris") is not None
    method = "atheris, by coverage" if has_atheris else "random damage: atheris is not installed"
    print(f"{len(names)} parsers, {minutes:g} minutes ({method})", flush=True)
    failed = []
    for name in names:
        mode = "coverage" if has_atheris else "random"
        seconds = 60 * minutes / len(names)
        command = [sys.executable, "-m", "tests.fuzz", mode, name, f"{seconds}"]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        lines = [line for line in ended.stdout.splitlines() if line.startswith(f"{name}: ")]
        said = ended.stderr.splitlines()
        runs = [line for line in said if "number_of_executed_units" in line]
        print(
            "\n".join(lines)
            or f"{name}: {runs[-1].split()[-1] if runs else '?'} damaged inputs, "
            "each read or refused",
            flush=True,
        )
        if ended.returncode:
            failed.append(name)
            print(ended.stderr[-3000:], flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "clean", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    if sys.argv[1] == "coverage":
        fuzz_with_coverage(sys.argv[2], float(sys.argv[3]))
    elif sys.argv[1] == "random":
        fuzz_randomly(sys.argv[2], float(sys.argv[3]))
    else:
        sys.exit(main(sys.argv[1:]))
