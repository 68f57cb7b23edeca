"""The benchmark of load runs its stages on little data, and measures processes as they are."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import benchmarks.__main__ as runner
from benchmarks import load, load_inputs, load_table
from benchmarks.measuring import measure, running
from src.annotations.store_builder import build_store
from tests.helpers.warm_python import ROOT

PARENT_AND_CHILD = """
import subprocess, sys, time
held = bytearray(100 << 20)
subprocess.run([sys.executable, "-c", "import time; held = bytearray(150 << 20); time.sleep(0.5)"])
"""


def test_memory_is_that_of_the_whole_tree(tmp_path: Path) -> None:
    with running(["-c", PARENT_AND_CHILD], tmp_path, subprocess.DEVNULL) as found:
        pass
    assert 0.24 < found.figures["peak_gib"] < 0.4
    assert found.figures["of_it_files_gib"] < 0.05
    assert found.figures["s"] >= 0.5


def test_a_command_that_fails_is_shown(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)exit code 2.*no\.csv"):
        measure("convert", "annotations=no.csv", "output=a.json", folder=tmp_path)


def test_generated_coco_annotations_are_valid(tmp_path: Path) -> None:
    named = load_inputs.write_coco(tmp_path / "a.json", 20, 300)
    load_inputs.write_plain_images(tmp_path / "images", named)
    report = build_store(tmp_path / "a.json", tmp_path / "a.store")
    assert (report.images, report.instances) == (20, 300)
    assert report.crowd_regions > 0
    assert report.images_without_instances == 0
    assert sum(1 for _ in (tmp_path / "images").iterdir()) == 20


@pytest.mark.slow
def test_a_stage_is_measured_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(load, "Sizes", lambda: load.TINY)
    earlier = {"load": {"coco": {"date": "2026-01-31"}}}
    (tmp_path / "cpu_load.json").write_text(json.dumps(earlier))
    runner.main(["load", "--stage", "sweep", "--output-dir", str(tmp_path / "work")])
    found = json.loads((tmp_path / "cpu_load.json").read_text())
    assert {"date", "machine", "commit"} <= set(found)
    assert found["load"]["coco"] == earlier["load"]["coco"]
    sweep: dict[str, Any] = found["load"]["sweep"]
    assert sweep["data"]["jobs"] == 4
    for name in ("sweep", "sweep_again", "report"):
        assert sweep[name]["command"].startswith("python -m src.")
        assert sweep[name]["cpu_s"] > 0
        assert 0.05 < sweep[name]["peak_gib"] < 1
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", sorted(set(load.STAGES) - {"sweep"}))
def test_every_stage_runs(stage: str, tmp_path: Path) -> None:
    figures = load.run(stages=[stage], output_dir=tmp_path, sizes=load.TINY)
    assert json.loads(json.dumps(figures)) == figures
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_stage_that_is_terminated_leaves_nothing(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "benchmarks", "load", "--stage", "csv", "--output-dir"]
    process = subprocess.Popen([*line, str(tmp_path)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("load_*/data")) and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lod"], "no benchmark lod; legal: .*load"),
        (["score", "--stage", "coco"], "--stage and --output-dir must be given with load alone"),
        (["load", "--stage", "cocoa"], "--stage must be one of csv, coco.*got cocoa"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match=message):
        runner.main(arguments)


def test_the_table_has_what_was_measured_with_its_source() -> None:
    figures = {"sweep": {"date": "2026-01-31", "sweep": {"cpu_s": 151.4, "peak_gib": 0.5}}}
    table = list(load_table.lines(figures))
    assert table[2] == "| sweep of 1,000 jobs on 40 images | 151 s | 0.50 GiB |"
    assert "151 s = load.sweep.sweep.cpu_s" in table
    assert len(table) == 2 + 1 + 2 + 2 + 1
    names = {path.partition(".")[0] for path in load_table.ROWS}
    assert names == set(load.STAGES)
