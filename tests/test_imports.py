"""What tests share is in tests/helpers/: no file imports a test, a conftest or another folder's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("tests", "benchmarks", "experiments")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
OF_TESTS = {path.stem for path in (ROOT / "tests").rglob("*.py")} - {"__init__"}


def faults_of(source: str, own_name: str) -> list[str]:
    """Return the modules that a module imports, or names in a string, and may not.

    Args:
        source: Its text.
        own_name: Its dotted name; a module may name itself in a string.
    """
    imported, named = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            imported.add("." * node.level + (node.module or ""))
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named |= set(re.findall(r"\btests(?:\.\w+)+", node.value))
    return sorted(
        {name for name in imported if name.startswith(".") or name.split(".")[0] in OF_TESTS}
        | {name for name in imported | named if re.match(r"tests\.(?!helpers\b)", name)}
        - {name for name in named if f"{name}.".startswith(f"{own_name}.")}
    )


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path != Path(__file__)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_only_helpers_are_imported(path: Path) -> None:
    own_name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    assert faults_of(path.read_text(), own_name) == []


@pytest.mark.parametrize(
    "source",
    [
        "from tests.test_configs import compose_config",
        "from tests.callbacks.conftest import data",
        "from tests.callbacks import conftest",
        "from tests import test_predict",
        "import tests.metrics.test_scoring",
        "def late():\n    from tests.tuning.lab_data import write_lab_data",
        "import plain_kernels",
        "from conftest import run",
        "from .conftest import run",
        "from . import conftest",
        'target = "+callbacks.kill._target_=tests.training.interruptions.KillOnce"',
        'code = "from tests.postprocess.generated import make_candidates"',
    ],
)
def test_other_imports_are_found(source: str) -> None:
    assert len(faults_of(source, "tests.test_imports")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from tests.helpers.cascades import SMALL",
        "from tests.helpers import plain_kernels",
        "from benchmarks.postprocess import run",
        "import benchmarks.score",
        'target = "tests.test_imports.faults_of"',
        'text = "as tests/postprocess/test_settings.py has it"',
    ],
)
def test_helpers_and_benchmarks_may_be_imported(source: str) -> None:
    assert faults_of(source, "tests.test_imports") == []


def test_every_folder_of_tests_is_a_package() -> None:
    """Two test modules may have one name, and pytest imports each by its full one."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
