"""The names of the public API: lazy, without torch, and never hidden by a module of that name."""

from __future__ import annotations

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import src

ROOT = Path(__file__).parents[2]


def python(program: str, cwd: Path = ROOT) -> str:
    """Run a program with the repository on its path; gives its stdout."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ORDERS = """
import importlib, itertools, json, types

def export(name):
    namespace = {}
    exec(f"from src import {name} as found", namespace)
    return namespace["found"]

def attribute(name):
    import src
    return getattr(src, name)

def star(name):
    namespace = {}
    exec("from src import *", namespace)
    return namespace[name]

def as_name(name):
    namespace = {}
    exec(f"import src.{name} as found", namespace)
    return namespace["found"]

def module(name):
    found = importlib.import_module(f"src.{name}")
    assert isinstance(found, types.ModuleType) and found.__name__ == f"src.{name}"

def plain_import(name):
    exec(f"import src.{name}")

def content(name):
    inner = {"postprocess": "pipeline", "validate_submission": "main"}.get(name, "main")
    exec(f"from src.{name} import {inner}")

count = 0
for name in ("postprocess", "score", "compare", "validate_submission"):
    gives = (export, attribute, star, as_name)
    steps = (export, attribute, as_name, module, plain_import, content)
    for order in itertools.permutations(steps):
        for known in [key for key in sys.modules if key == "src" or key == f"src.{name}"]:
            del sys.modules[known]
        for step in (*order, star):
            found = step(name)
            if step in gives:
                assert isinstance(found, types.FunctionType), (name, order, step, found)
        count += 1
print(count)
"""


@pytest.mark.slow
def test_a_function_is_never_hidden_by_its_module_in_any_order_of_imports() -> None:
    assert python(ORDERS) == f"{4 * 720}\n"


def test_importing_the_package_is_cheap() -> None:
    program = "import json, src; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(python(program)))
    assert not loaded & {"numpy", "hydra", "omegaconf", "torch", "pandas", "rich", "src.api"}


def test_a_notebook_needs_no_torch(tmp_path: Path) -> None:
    program = """
from src import *
store = PredictionStore("example/predictions_validation")
settings = PostprocessSettings.preset("winner_all_classes")
detections = postprocess(store, settings)
assert sum(map(len, detections.values())) == 5
assert "pandas" not in sys.modules  # it takes a second, and only tables need it
annotations = open_annotations("example/data/train.csv", images="example/data/train")
score(detections, annotations).interval()
draw(annotations.image_path("0.png"), detections["0.png"], annotations, output="0.png")
write_submission("submission.csv", detections)
validate_submission("submission.csv")
compare(detections, "submission.csv", annotations)
sweep(store, annotations, {"score_threshold": [0.2, 0.5]}, settings=settings)
names = ("torch", "torchvision", "lightning", "mmdet", "mmcv", "mmengine", "hydra")
print([name for name in names if name in sys.modules])
"""
    src.write_example(tmp_path / "example")
    assert python(program, cwd=tmp_path) == "[]\n"
    assert {path.name for path in tmp_path.iterdir()} == {"example", "0.png", "submission.csv"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'src' has no attribute 'scores'"):
        src.scores  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'scores' from 'src'"):
        exec("from src import scores")


def test_every_export_is_listed() -> None:
    assert sorted(src.__all__) == list(src.__all__) == sorted(src._MODULE_OF)
    assert set(src.__all__) <= set(dir(src))


@pytest.mark.parametrize("name", src.__all__)
def test_its_docstring_has_an_example_that_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exported = getattr(src, name)
    module = importlib.import_module(exported.__module__)
    found = [
        test
        for test in doctest.DocTestFinder(recurse=False).find(exported, name, module=module)
        if test.examples
    ]
    assert found, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in found:
        runner.run(test)
    assert not runner.failures, capsys.readouterr().out
