"""A prediction that was cut off, or whose images failed, resumes; several processes share it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import src.modules.ensemble
from src.callbacks.prediction_writer import PredictionWriter
from src.errors import InputError
from src.predictions.store import PredictionStore
from tests.helpers.predictions import SIZES_HW, checkpoint, command, overrides, run, write_folder
from tests.helpers.slurm import slurm_job
from tests.helpers.stores import check_same


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("predict"))


SHARDS_OF_ONE = "images_per_shard=1"


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the images that a model has seen, in order."""
    seen: list[str] = []
    original = src.modules.ensemble.predict_candidates

    def watched(models: Any, views: Any, **rest: Any) -> Any:
        seen.extend(str(sample.img_id) for sample in views[0]["data_samples"])
        return original(models, views, **rest)

    monkeypatch.setattr(src.modules.ensemble, "predict_candidates", watched)
    return seen


def copied(folder: Path, directory: Path) -> Path:
    (directory / "test").mkdir()
    for name in SIZES_HW:
        (directory / "test" / name).write_bytes((folder / "test" / name).read_bytes())
    return directory / "test"


def check_same_stores(found: PredictionStore, wanted: PredictionStore) -> None:
    assert found.image_ids == wanted.image_ids
    assert found.meta == wanted.meta
    for index in range(len(wanted)):
        check_same(found.candidates(index), wanted.candidates(index), "float16")


def test_what_is_in_the_store_is_not_predicted_again(
    folder: Path,
    tmp_path: Path,
    predicted: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = [f"checkpoint={checkpoint(folder, 0)}", SHARDS_OF_ONE]
    whole = run(folder, tmp_path / "whole", *given)
    cut = run(folder, tmp_path, *given)
    assert predicted == [*SIZES_HW, *SIZES_HW]
    # as a killed process leaves it
    (cut.directory / "rank00000_shard00001.arrow").rename(
        cut.directory / ".rank00000_shard00001.arrow.h-1-1.part"
    )
    (cut.directory / "rank00000_done.json").unlink()
    # and one of a run on more devices
    (cut.directory / ".rank00003_shard00000.arrow.h-1-1.part").write_bytes(b"half")
    predicted.clear()
    # workers are how images are read, not what they are
    check_same_stores(run(folder, tmp_path, *given, "datamodule.prefetch_factor=4"), whole)
    assert predicted == ["b.jpg"]
    assert not list(cut.directory.glob(".*.part"))
    predicted.clear()
    # of an earlier version, without the list of its images, which is added
    (cut.directory / "expected_images.json").unlink()
    with caplog.at_level(logging.INFO):
        check_same_stores(run(folder, tmp_path, *given), whole)
        assert "finished already" not in caplog.text
        assert (cut.directory / "expected_images.json").exists()
        check_same_stores(run(folder, tmp_path, *given), whole)
    assert f"finished already: {cut.directory} has all 3 images" in caplog.text
    assert predicted == []


def test_an_error_keeps_what_was_predicted_before_it(
    folder: Path,
    tmp_path: Path,
    predicted: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = [f"checkpoint={checkpoint(folder, 0)}"]
    watched = src.modules.ensemble.predict_candidates

    def breaks(*models: Any, **rest: Any) -> Any:
        if len(predicted) == 2:
            raise RuntimeError("the cable was pulled")
        return watched(*models, **rest)

    monkeypatch.setattr(src.modules.ensemble, "predict_candidates", breaks)
    with pytest.raises(RuntimeError, match="the cable was pulled"):
        run(folder, tmp_path, *given)
    monkeypatch.setattr(src.modules.ensemble, "predict_candidates", watched)
    assert len(run(folder, tmp_path, *given)) == 3
    assert predicted == list(SIZES_HW)


def test_slurms_requeue_signal_leaves_no_checkpoint(
    folder: Path, tmp_path: Path, predicted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is what a requeued job resumes from; the run's folder is the training's."""
    requests = slurm_job(tmp_path, monkeypatch)
    watched = src.modules.ensemble.predict_candidates

    def signals(*models: Any, **rest: Any) -> Any:
        if len(predicted) == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return watched(*models, **rest)

    monkeypatch.setattr(src.modules.ensemble, "predict_candidates", signals)
    store = run(folder, tmp_path, f"checkpoint={checkpoint(folder, 0)}")
    assert requests.read_text() == "requeue 4711\n"
    assert len(store) == 3
    assert not list(tmp_path.rglob("*.ckpt"))


def test_failed_images_are_listed_and_are_predicted_when_they_are_repaired(
    folder: Path,
    tmp_path: Path,
    predicted: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    images = copied(folder, tmp_path)
    Image.new("RGB", (400, 20)).save(images / "thin.jpg")
    (images / "b.jpg").write_bytes((folder / "test" / "b.jpg").read_bytes()[:900])
    given = [f"checkpoint={checkpoint(folder, 0)}", f"datamodule.test_images={images}"]
    store = run(folder, tmp_path, *given)
    assert store.image_ids == ("a.jpg", "c.jpg")
    assert list(store.failed) == ["b.jpg", "thin.jpg"]
    assert "truncated" in store.failed["b.jpg"]
    assert "becomes a view of 5x96 px at the scale (64, 96)" in store.failed["thin.jpg"]
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert errors[0].startswith("2 of the 4 images could not be predicted; run the same command")
    assert [text.split(": ")[0] for text in errors[1:]] == [
        "no prediction of b.jpg",
        "no prediction of thin.jpg",
    ]
    (images / "b.jpg").write_bytes((folder / "test" / "b.jpg").read_bytes())
    predicted.clear()
    again = run(folder, tmp_path, *given)
    assert predicted == ["b.jpg"]
    assert again.image_ids == ("a.jpg", "b.jpg", "c.jpg")
    assert list(again.failed) == ["thin.jpg"]


@pytest.mark.slow
def test_a_vanished_image_makes_the_exit_code_1_and_postprocessing_names_it(
    folder: Path,
    tmp_path: Path,
) -> None:
    images = copied(folder, tmp_path)
    sample = tmp_path / "sample.csv"
    sample.write_text("ImageId,EncodedPixels,ClassId\n" + "".join(f"{n},,\n" for n in SIZES_HW))
    (images / "b.jpg").unlink()
    given = [f"checkpoint={checkpoint(folder, 0)}", f"datamodule.test_images={images}"]
    given += [f"datamodule.sample_submission={sample}", f"hydra.run.dir={tmp_path}/run"]
    store = tmp_path / "store"
    result = command(*overrides(folder, *given, f"predictions={store}"), folder=tmp_path)
    assert result.returncode == 1, result.stderr
    assert f"no prediction of b.jpg: {images}/b.jpg: the image file is missing" in result.stdout
    assert PredictionStore(store).image_ids == ("a.jpg", "c.jpg")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "src.postprocess",
            f"predictions={store}",
            f"output={tmp_path}/s.csv",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert result.returncode == 2
    assert result.stderr.strip() == (
        f"error: {store}: 1 of the 3 images of its split have no predictions, the first is 'b.jpg' "
        f"({images}/b.jpg: the image file is missing); run predict on them, or give partial=true "
        "to use the images that are there"
    )
    assert not (tmp_path / "s.csv").exists()


def test_a_folder_with_none_of_the_images_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_text("ImageId\nx.jpg\ny.jpg\n")
    given = [f"checkpoint={checkpoint(folder, 0)}"]
    with pytest.raises(InputError, match=r"'x\.jpg' has no image in .*\(2 of 2 ids have none\)"):
        run(folder, tmp_path, *given, f"datamodule.sample_submission={tmp_path}/sample.csv")


def test_a_list_of_images_that_lost_one_is_noticed(folder: Path, tmp_path: Path) -> None:
    images = copied(folder, tmp_path)
    given = [f"checkpoint={checkpoint(folder, 0)}", f"datamodule.test_images={images}"]
    run(folder, tmp_path, *given)
    (images / "a.jpg").unlink()
    message = r"1 images are in the prediction store that are none of the 2 images .* 'a\.jpg'"
    with pytest.raises(InputError, match=message):
        run(folder, tmp_path, *given)


def test_images_that_were_lost_on_the_way_are_named(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PredictionWriter, "write_on_batch_end", lambda *args: None)
    message = r"predictions_test: 3 of the 3 images are not there: a\.jpg, b\.jpg, c\.jpg; run the"
    with pytest.raises(InputError, match=message):
        run(folder, tmp_path, f"checkpoint={checkpoint(folder, 0)}")


@pytest.mark.slow
def test_two_processes_write_the_store_of_one(folder: Path, tmp_path: Path) -> None:
    given = [f"checkpoint={checkpoint(folder, 0)}"]
    one = run(folder, tmp_path / "one", *given)
    devices = ["trainer.devices=2", "trainer.strategy=ddp", f"hydra.run.dir={tmp_path}/run"]
    store = tmp_path / "two"
    given = overrides(folder, *given, *devices, f"predictions={store}", "num_torch_threads=1")
    result = command(*given, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in store.glob("rank*_done.json")} == {
        "rank00000_done.json",
        "rank00001_done.json",
    }
    check_same_stores(PredictionStore(store), one)


def test_a_sweep_on_several_devices_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    given = [f"checkpoint={checkpoint(folder, 0)}", "trainer.devices=2", "tta=none,flip"]
    sweep = [f"hydra.sweep.dir={tmp_path}/sweep", "hydra.sweep.subdir=${hydra.job.num}"]
    result = command("-m", *overrides(folder, *given, *sweep), folder=tmp_path)
    assert result.returncode == 2
    assert "error: -m with trainer.devices=2: each of the 2 processes of a job" in result.stderr


@pytest.mark.slow
def test_a_killed_run_of_two_processes_goes_on_with_fewer_images_than_processes(
    folder: Path,
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "many").mkdir()
    for number in range(120):
        pixels = random.integers(0, 256, (80, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "many" / f"{number:03d}.jpg")
    store = tmp_path / "two"
    given = overrides(
        folder,
        f"checkpoint={checkpoint(folder, 0)}",
        f"datamodule.test_images={tmp_path}/many",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        f"hydra.run.dir={tmp_path}/run",
        f"predictions={store}",
        "num_torch_threads=1",
        SHARDS_OF_ONE,
    )
    arguments = [sys.executable, "-m", "src.predict", *given]
    with subprocess.Popen(
        arguments, cwd=Path(__file__).parents[1], start_new_session=True, stdout=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 200
        while len(list(store.glob("*.arrow"))) < 10 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    before = {path.name: path.stat().st_mtime_ns for path in store.glob("*.arrow")}
    assert 10 <= len(before) < 120
    # one image is left for two processes
    ids = PredictionStore(store).image_ids
    *others, last = sorted(path for path in (tmp_path / "many").iterdir() if path.name not in ids)
    for path in others:
        path.unlink()
    result = command(*given, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert PredictionStore(store).image_ids == tuple(sorted([*ids, last.name]))
    after = {path.name: path.stat().st_mtime_ns for path in store.glob("*.arrow")}
    assert {name: after[name] for name in before} == before
    assert not list(store.glob(".*.part"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_prediction_and_keeps_its_shards(
    folder: Path, tmp_path: Path, number: int, code: int
) -> None:
    (tmp_path / "many").mkdir()
    for copy in range(400):
        os.link(folder / "test" / "a.jpg", tmp_path / "many" / f"{copy:03d}.jpg")
    store = tmp_path / "store"
    given = overrides(
        folder,
        f"checkpoint={checkpoint(folder, 0)}",
        f"datamodule.test_images={tmp_path}/many",
        f"predictions={store}",
        f"hydra.run.dir={tmp_path}/run",
        "images_per_shard=4",
    )
    with subprocess.Popen(
        [sys.executable, "-m", "src.predict", *given],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 200
        while not list(store.glob("*.arrow")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert stderr.endswith("interrupted: the same command predicts the images that are missing\n")
    assert list(store.glob("*.arrow"))
    assert not list(store.glob(".*"))
