"""Memory of a conversion does not grow with the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.convert import write_generated_csv

ROOT = Path(__file__).resolve().parents[2]
_CONVERT = """
import re, sys
from src.annotations.conversion import convert
convert(sys.argv[1], sys.argv[2])
# Not ru_maxrss: a process begins with its parent's, and the parent may be a whole test run.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024)
"""


def peak_mebibytes(source: Path, output: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _CONVERT, source, output],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.slow
def test_peak_memory_is_flat(tmp_path):
    peaks = []
    for rows in (3_500, 35_000):
        write_generated_csv(tmp_path / "rows.csv", rows)
        peaks.append(peak_mebibytes(tmp_path / "rows.csv", tmp_path / "rows.json"))
        peaks.append(peak_mebibytes(tmp_path / "rows.json", tmp_path / "back.csv"))
        assert (tmp_path / "back.csv").read_bytes() == (tmp_path / "rows.csv").read_bytes()
    # 333 MB of text more, of which a few blocks and under 1 KB a row may be in memory.
    assert peaks[2] - peaks[0] < 150
    assert peaks[3] - peaks[1] < 150
    assert max(peaks) < 600
