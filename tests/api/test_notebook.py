"""examples/quickstart.ipynb runs on the demo's output; the pages show the same lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from src import write_example
from tests.helpers.pages import read_page

ROOT = Path(__file__).parents[2]
NOTEBOOK = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text())
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
CHECKS = """
import json
names = ("torch", "torchvision", "lightning", "mmdet", "mmcv", "mmengine", "hydra")
print([name for name in names if name in sys.modules])
print(json.dumps([result.competition_map, drawing.shape, masks.shape, len(coco), gain.verdict]))
"""


def blocks(page: str) -> list[str]:
    """The Python code of a page."""
    return [block.text for block in read_page(page) if block.kind == "python"]


@pytest.mark.parametrize("opened_in", [".", "examples"])
def test_the_notebook_runs_on_the_output_of_the_demo(tmp_path: Path, opened_in: str) -> None:
    write_example(tmp_path / "outputs" / "demo")
    (tmp_path / "examples").mkdir()
    (tmp_path / "src").symlink_to(ROOT / "src")
    program = tmp_path / "program.py"
    program.write_text("\n".join([*CODE, CHECKS]))
    done = subprocess.run(
        [sys.executable, "-P", str(program)],
        cwd=tmp_path / opened_in,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("0.75 Interval(estimate=0.75, low=0.5, high=1.0")
    assert lines[1] == "[]"
    assert json.loads(lines[2]) == [0.75, [640, 1940, 3], [2, 64, 64], 5, "within noise"]
    assert (tmp_path / "outputs" / "demo" / "quickstart.csv").exists()


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert (ROOT / "examples" / "quickstart.ipynb").stat().st_size < 20_000
    assert len(CODE[1].splitlines()) - 1 <= 8  # an empty line among them


def test_docs_show_the_lines_of_the_notebook() -> None:
    assert "\n\n".join(blocks("docs/python_api.md")) == "\n\n".join(CODE[1:])
    assert CODE[1] in (ROOT / "README.md").read_text().replace("\n    ", "\n")
