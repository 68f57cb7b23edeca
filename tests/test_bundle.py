"""``python -m src.bundle``: mistakes, and the same submission without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from src.bundle import main, replayed
from src.errors import InputError
from src.mmdet_bridge.checkpoints.reading import load_checkpoint
from tests.helpers.bundles import code_cells, write_competition
from tests.helpers.no_network import run_without_network
from tests.helpers.predictions import checkpoint

ROOT = Path(__file__).parents[1]
SETTINGS = ("postprocess=winner", "postprocess.remove_categories=[]")


def test_prediction_in_the_bundle_gets_the_keys_that_are_its_own() -> None:
    given = [
        *("output=b", "leave_out=[torch]", "notebook.images=x", "python_version=3.12"),
        *("checkpoint=[a.ckpt]", "ensemble=top3", "ensemble.num_best=2", "competition=dsb_2018"),
        *("postprocess=winner", "postprocess.score_threshold=0.2"),
    ]
    kept = ["+experiment=demo", "tta=flip", "ensemble.model_weights=[1,2]", "trainer=cpu"]
    assert replayed([*given, *kept]) == kept


@pytest.mark.parametrize("key", ["images", "image", "annotations", "predictions", "predict_split"])
def test_places_of_this_machine_are_refused(key: str) -> None:
    with pytest.raises(InputError, match=rf"^{key} must not be given, for the bundle predicts "):
        replayed([f"{key}=x"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("platform=win", "platform must be manylinux_2_N_x86_64 or manylinux_2_N_aarch64, "),
        ("python_version=3.9", "python_version must be 3.11, 3.12 or 3.13, got 3.9"),
        ("leave_out=[no_such]", "leave_out must be names of packages in requirements/"),
        ("leave_out=3", "leave_out must be a list of packages, or all, got 3"),
        ("notebook.partial=2", "notebook.partial must be true or false, got 2"),
        ("tta.flip=2", "tta.flip must be true or false, got 2"),
        ("postprocess.score_threshold=2", "postprocess.score_threshold must be a number from 0"),
        ("output=there", "output must be a new folder or a bundle to replace, got there"),
        ("checkpoint=no.ckpt", "checkpoint must be a file of weights, or the folder of a run"),
        ("images=x", "images must not be given, for the bundle predicts elsewhere: "),
    ],
)
def test_mistakes(refused: Callable[..., str], tmp_path: Path, argument: str, message: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "a.ckpt").touch()
    line = refused(main, "output=new", "checkpoint=a.ckpt", argument)
    assert line.startswith(f"error: {message}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "there"]


def run(folder: Path, *words: str | Path, code: Path = ROOT) -> None:
    ended = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a run, a bundle, and the submission of the repository itself."""
    folder = tmp_path_factory.mktemp("bundle")
    given = [*write_competition(folder), "tta=flip", "ensemble.model_weights=[1,2]"]
    run(folder, "-m", "src.bundle", "output=my bundle", "leave_out=all", *given, *SETTINGS)
    run(
        *(folder, "-m", "src.predict", *given, "images=test", "predictions=store"),
        *("datamodule.sample_submission=sample.csv", "hydra.run.dir=run", "paths.output_dir=run"),
    )
    run(
        *(folder, "-m", "src.postprocess", "predictions=store", *SETTINGS),
        *("sample_submission=sample.csv", "output=expected.csv"),
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("way", ["program", "notebook"])
def test_the_submission_without_a_network_is_that_of_the_repository(
    folder: Path, tmp_path: Path, way: str
) -> None:
    """The bundle alone, elsewhere, read-only: its own code, weights and settings are used."""
    bundle = tmp_path / "it's mounted" / "my bundle"
    shutil.copytree(folder / "my bundle", bundle)
    for path in (*bundle.rglob("*"), bundle):
        path.chmod(0o555 if path.is_dir() else 0o444)
    places = [folder / "test", folder / "sample.csv", tmp_path / "out.csv", tmp_path / "work"]
    if way == "program":
        keys = ("images", "sample_submission", "output", "work_dir")
        words = [f"{key}={place}" for key, place in zip(keys, places, strict=True)]
        command = [sys.executable, "-B", bundle / "submit.py", *words]
    else:
        names = ("IMAGES", "SAMPLE_SUBMISSION", "OUTPUT", "WORK_DIR")
        cells = code_cells(bundle)
        cells[0] += f"\nBUNDLE = {str(bundle)!r}\n"
        cells[0] += "".join(f"{n} = {str(p)!r}\n" for n, p in zip(names, places, strict=True))
        (tmp_path / "cells.py").write_text("\n".join(cells))
        command = [sys.executable, tmp_path / "cells.py"]
    # what a notebook's kernel has in its environment
    env = {"PYTHONPATH": "/no/folder", "MPLBACKEND": "module://no.backend"}
    ended = run_without_network(command, cwd=tmp_path, env={**os.environ, **env})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / "out.csv").read_bytes() == (folder / "expected.csv").read_bytes()
    assert "out.csv: valid (" in ended.stdout
    for path in (bundle, *bundle.rglob("*")):
        path.chmod(0o755)


@pytest.mark.slow
def test_what_a_bundle_holds(folder: Path) -> None:
    bundle = folder / "my bundle"
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["weights"] == ["weights/0.safetensors", "weights/1.safetensors"]
    assert manifest["predict"][-1] == "ensemble.model_weights=[1,2]"
    assert not any(path.stat().st_size == 0 for path in bundle.rglob("*") if path.is_file())
    assert str(folder) not in (bundle / "manifest.json").read_text()
    assert not [name for name in manifest["files"] if "__pycache__" in name or "tests/" in name]
    for number in (0, 1):
        found = load_checkpoint(bundle / f"weights/{number}.safetensors")
        source = load_checkpoint(checkpoint(folder, number))
        assert found.hyper_parameters == source.hyper_parameters
        assert all(
            found.weights[name.removeprefix("detector.")].equal(value)
            for name, value in source.weights.items()
        )
    assert 'BUNDLE = "/kaggle/input/my bundle"' in code_cells(bundle)[0].replace("'", '"')
    assert [path.name for path in folder.glob(".*")] == []


@pytest.mark.slow
def test_a_bundle_is_replaced_and_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    first = (folder / "my bundle" / "manifest.json").read_text()
    words = ["-m", "src.bundle", "output=my bundle", "leave_out=all", "trainer=cpu"]
    run(folder, *words, f"checkpoint={checkpoint(folder, 0)}")
    assert "weights/1.safetensors" not in (folder / "my bundle" / "manifest.json").read_text()
    ended = subprocess.run(
        [sys.executable, *words, f"checkpoint={checkpoint(folder, 1)}", "module.num_classes=7"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "error: module.num_classes must be 5" in ended.stderr
    assert (folder / "my bundle" / "manifest.json").read_text() != first
    assert [path.name for path in folder.glob(".*")] == []
