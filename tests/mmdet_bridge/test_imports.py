"""Import order: mmcv's operators are there before mmdet is, and checkpoints need neither."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
OPEN_MMLAB = {"mmdet", "mmcv", "mmengine"}
# Importing one of these packages installs the kernels before any module of theirs runs.
INSTALLERS = (SOURCE / "mmdet_bridge/cascade", SOURCE / "mmdet_bridge/kernels")


def imported_packages(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        yield from (name.partition(".")[0] for name in names)


@pytest.mark.parametrize(
    "module",
    [
        "reading",
        "weight_files",
        "untrusted_config",
        pytest.param("averaging", marks=pytest.mark.slow),
    ],
)
def test_checkpoints_are_read_without_mmdet(module: str) -> None:
    code = (
        f"import src.mmdet_bridge.checkpoints.{module}, sys; "
        "assert not {'mmdet', 'mmcv', 'mmengine', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=SOURCE.parent, check=True)


def test_mmdet_is_imported_only_where_the_kernels_are_installed_first() -> None:
    users = [
        path
        for path in sorted(SOURCE.rglob("*.py"))
        if OPEN_MMLAB.intersection(imported_packages(ast.parse(path.read_text(encoding="utf-8"))))
    ]
    assert users, "the walk finds the bridge itself"
    assert [path for path in users if not path.is_relative_to(SOURCE / "mmdet_bridge")] == []
    assert [path for path in users if path.parent not in INSTALLERS] == []
    for package in INSTALLERS:
        tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
        assert OPEN_MMLAB.isdisjoint(imported_packages(tree))
        first = next(node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
        assert package.name == "kernels" or ast.unparse(first).endswith("import kernels")
