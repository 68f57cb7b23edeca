"""``python -m src.import_predictions``: what comes in comes out, in every command, exactly."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from src.annotations.coco_results import number_images
from src.cli.postprocess import main as postprocess
from src.compare import main as compare
from src.convert import main as convert
from src.example import write_example
from src.export_coco import main as export_coco
from src.fuse import main as fuse
from src.import_predictions import main as import_predictions
from src.metrics.coco_average_precision import AveragePrecision, CocoImage, coco_score
from src.postprocess.pipeline import StoreDetections
from src.postprocess.settings import PostprocessSettings
from src.predictions import importing
from src.predictions.store import PredictionStore
from src.report import main as report
from src.score import main as score
from src.search import main as search
from tests.helpers.results import write_truth_and_results

UNCHANGED = PostprocessSettings.preset("unchanged")
NO_CACHE = "cache_dir=null"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_truth_and_results(tmp_path_factory.mktemp("results"))


@pytest.fixture
def store(run: Any, files: tuple[Path, Path], tmp_path: Path) -> Path:
    truth, results = files
    output = tmp_path / "store"
    run(import_predictions, f"input={results}", f"annotations={truth}", f"output={output}")
    return output


def evaluate(truth: Path, results: Path, kind: str) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(truth))
        evaluation = COCOeval(reference, reference.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def own_score(truth: Path, found: StoreDetections | list[dict[str, Any]]) -> AveragePrecision:
    """The project's AP of the masks of a store, or of the entries of a file."""
    content = json.loads(truth.read_text())
    numbers = {image["file_name"]: image["id"] for image in content["images"]}
    entries: Any = found.to_coco(numbers) if isinstance(found, StoreDetections) else found
    images = [
        CocoImage(
            number=image["id"],
            size_hw=(image["height"], image["width"]),
            annotations=[a for a in content["annotations"] if a["image_id"] == image["id"]],
            results=[entry for entry in entries if entry["image_id"] == image["id"]],
        )
        for image in content["images"]
    ]
    return coco_score(images, category_ids=[one["id"] for one in content["categories"]]).masks


def last_line(shown: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shown.splitlines()[-1])
    return found


def by_image(results: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for entry in results:
        found.setdefault(entry["image_id"], []).append(entry)
    return {  # by falling score, ties in the order of the file
        number: sorted(entries, key=lambda entry: -entry["score"])
        for number, entries in found.items()
    }


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_pycocotools_on_the_same_file(
    run: Any, tmp_path: Path, seed: int
) -> None:
    truth, results = write_truth_and_results(tmp_path, seed)
    output = tmp_path / "store"
    shown = run(import_predictions, f"input={results}", f"annotations={truth}", f"output={output}")
    assert shown.splitlines()[0] == (
        f"{output}: 72 detections in 6 of 6 images, of the COCO results {results}"
    )
    exported = tmp_path / "exported.json"
    options = (f"output={exported}", f"annotations={truth}", "postprocess=unchanged")
    run(export_coco, f"predictions={output}", *options)
    for kind in ("segm", "bbox"):
        wanted = evaluate(truth, results, kind)
        assert 0.1 < wanted[0] < 0.9
        assert np.array_equal(evaluate(truth, exported, kind), wanted)
    of_store = own_score(truth, StoreDetections(PredictionStore(output), UNCHANGED))
    of_file = own_score(truth, json.loads(results.read_text()))
    assert of_store == of_file
    # faster-coco-eval rounds otherwise than pycocotools, in the last of 52 bits
    assert of_store.map == pytest.approx(evaluate(truth, results, "segm")[0], rel=1e-15)


def test_export_gives_back_every_entry(store: Path, files: tuple[Path, Path]) -> None:
    truth, results = files
    opened = PredictionStore(store)
    numbers = number_images(opened.image_ids, truth, source="")
    found = StoreDetections(opened, UNCHANGED).to_coco(numbers)
    assert by_image(found) == by_image(json.loads(results.read_text()))  # type: ignore[arg-type]
    assert opened.classes.names == ("kind 0", "kind 1", "kind 2")


def test_what_export_wrote_comes_back(run: Any, tmp_path: Path) -> None:
    write_example(tmp_path / "example")
    predicted = tmp_path / "example" / "predictions_validation"
    annotations = tmp_path / "example" / "data" / "train.csv"
    run(export_coco, f"predictions={predicted}", "output=results.json")
    run(import_predictions, "input=results.json", f"annotations={annotations}", "output=store")
    run(export_coco, "predictions=store", "output=again.json", "postprocess=unchanged")
    assert Path("again.json").read_bytes() == Path("results.json").read_bytes()
    options = (f"annotations={annotations}", NO_CACHE)
    of_store = last_line(run(postprocess, f"predictions={predicted}", *options))
    again = last_line(run(postprocess, "predictions=store", *options))
    assert of_store["competition_map"] == again["competition_map"] > 0


def test_a_submission_scores_as_its_file(run: Any, tmp_path: Path) -> None:
    write_example(tmp_path / "example")
    predicted = tmp_path / "example" / "predictions_validation"
    annotations = f"annotations={tmp_path / 'example' / 'data' / 'train.csv'}"
    run(postprocess, f"predictions={predicted}", "output_dir=.", "postprocess=winner_all_classes")
    errors: list[str] = []
    given = ("input=submission.csv", annotations, "output=store")
    shown = run(import_predictions, *given, errors=errors)
    assert ", of the submission submission.csv" in shown
    assert "each detection has score 1, in the order of the rows" in errors[0]
    wanted = last_line(run(score, "submission=submission.csv", annotations, NO_CACHE))
    options = (annotations, NO_CACHE, "postprocess=unchanged", "output_dir=again")
    found = last_line(run(postprocess, "predictions=store", *options))
    assert found == wanted
    assert Path("again/submission.csv").read_bytes() == Path("submission.csv").read_bytes()
    assert run(import_predictions, *given, errors=errors)
    assert errors[-1] == "note: the store was there before, of the same file\n"


def test_results_are_scored_like_the_store_by_every_command(
    run: Any, store: Path, files: tuple[Path, Path]
) -> None:
    truth, results = files
    options = (f"annotations={truth}", NO_CACHE)
    wanted = last_line(run(score, f"submission={results}", *options))
    found = last_line(run(postprocess, f"predictions={store}", *options, "postprocess=unchanged"))
    assert found == wanted
    assert 0 < wanted["competition_map"] < 1
    sides = (f"a={results}", f"b={store}", "b_postprocess=unchanged", "num_resamples=100")
    compared = last_line(run(compare, *sides, *options))
    assert compared["a"] == compared["b"]
    for given in (f"submission={results}", f"predictions={store}"):
        shown = run(report, given, *options, "output=report.html", "num_resamples=100")
        assert shown.startswith("wrote report.html")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (postprocess, ("postprocess=winner_all_classes",)),
        (postprocess, ("postprocess.mask_threshold=0.45",)),
        (postprocess, ("-m", "postprocess.mask_threshold=0.45,0.5", "hydra.sweep.dir=sweep")),
        (report, ("postprocess.mask_threshold=0.45", "output=report.html")),
        (search, ("postprocess.mask_threshold=0.45", "config_dir=conf", "num_folds=2")),
    ],
)
def test_settings_that_need_probabilities_are_refused(
    refused: Any, store: Path, files: tuple[Path, Path], program: Any, arguments: tuple[str, ...]
) -> None:
    options = (f"predictions={store}", f"annotations={files[0]}", NO_CACHE)
    assert refused(program, *options, *arguments) == (
        f"error: postprocess.mask_threshold must be 0.5 for {store}, got 0.45: its masks are fixed,"
        " imported from results.json, which has no mask probabilities"
    )


def test_the_other_refusals_say_why(
    refused: Any, store: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    truth, results = files
    given = (f"predictions={store}", f"annotations={truth}")
    fixed = "its masks are fixed, imported from results.json, which has no mask probabilities"
    shown = refused(postprocess, *given, NO_CACHE, "postprocess.mask_threshold_per_class={1: 0.4}")
    assert shown == (
        f"error: postprocess.mask_threshold_per_class must be null for {store}, got {{1: 0.4}}: "
        f"{fixed}"
    )
    shown = refused(search, *given, NO_CACHE, "space.mask_threshold=[0.4]", "config_dir=conf")
    assert shown == f"error: space.mask_threshold must be null here, got [0.4]: {fixed}"
    shown = refused(export_coco, given[0], "output=out.json", "postprocess.mask_threshold=0.4")
    assert shown.endswith(fixed)
    shown = refused(fuse, f"predictions=[{store}]", "output=fused")
    assert shown == (
        "error: predictions must be stores with mask probabilities, which fusing averages, got "
        f"{store}: {fixed}"
    )
    sides = (f"a={store}", f"b={results}", f"annotations={truth}", NO_CACHE)
    shown = refused(compare, *sides, "a_postprocess.mask_threshold=0.4")
    assert shown == f"error: a_postprocess.mask_threshold must be 0.5 for {store}, got 0.4: {fixed}"
    shown = refused(convert, f"annotations={results}", "output=converted.json")
    assert shown.startswith(
        "error: annotations must be a JSON object with images and annotations, got a JSON list, as "
        f"COCO results are: predictions ({results}); src.score submission="
    )


def test_a_search_leaves_mask_thresholds_out(
    run: Any, store: Path, files: tuple[Path, Path]
) -> None:
    given = (f"predictions={store}", f"annotations={files[0]}", NO_CACHE, "config_dir=conf")
    shown = run(search, *given, "num_trials=4", "num_folds=2", "num_resamples=100")
    assert shown.startswith(
        "note: mask_threshold and mask_threshold_per_class are not searched, and have their "
        f"default in the baselines, too: of {store}, its masks are fixed"
    )
    settings = last_line(shown)["settings"]
    assert (settings["mask_threshold"], settings["mask_threshold_per_class"]) == (0.5, {})


@pytest.mark.parametrize("num_bytes", [1, 2000])
def test_buckets_on_the_disk_give_the_same_store(
    run: Any,
    store: Path,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_bytes: int,
) -> None:
    monkeypatch.setattr(importing, "BUCKET_BYTES", num_bytes)
    given = f"input={files[1]}", f"annotations={files[0]}"
    run(import_predictions, *given, f"output={tmp_path / 'other'}")
    shards = [sorted(path.glob("*.arrow")) for path in (store, tmp_path / "other")]
    assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "store"]


def test_a_stopped_import_resumes_and_another_file_is_refused(
    run: Any, refused: Any, store: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    truth, results = files
    given = f"annotations={truth}", f"output={store}"
    wanted = [PredictionStore(store).candidates(index).scores.tolist() for index in range(6)]
    for path in (*store.glob("*.arrow"), *store.glob("*done.json")):
        path.unlink()
    assert refused(postprocess, f"predictions={store}").endswith(
        "holds no predictions yet; run the same import_predictions command again"
    )
    run(import_predictions, f"input={results}", *given)
    again = PredictionStore(store)
    assert [again.candidates(index).scores.tolist() for index in range(6)] == wanted
    other = tmp_path / "results.json"
    other.write_text(json.dumps(json.loads(results.read_text())[1:]))
    shown = refused(import_predictions, f"input={other}", *given)
    assert "holds predictions of another run; give another folder" in shown
    assert "settings.imported.sha256" in shown


def test_a_store_of_annotations_keeps_the_ids_of_its_file(
    run: Any, refused: Any, files: tuple[Path, Path], tmp_path: Path
) -> None:
    truth, results = tmp_path / "truth.json", files[1]
    truth.write_bytes(files[0].read_bytes())
    run(convert, f"annotations={truth}", "output=truth.store", "output_format=store")
    given = (f"input={results}", "annotations=truth.store")
    run(import_predictions, *given, "output=store")
    exported = "output=out.json", f"annotations={truth}", "postprocess=unchanged"
    run(export_coco, "predictions=store", *exported)
    wanted = by_image(json.loads(results.read_text()))
    assert by_image(json.loads(Path("out.json").read_text())) == wanted
    truth.unlink()  # the ids are lost, and are not made up
    message = "image_id must be the id or the file name of an image of "
    assert message in refused(import_predictions, *given, "output=other")
    assert message in refused(score, f"submission={results}", "annotations=truth.store", NO_CACHE)


def test_a_split_takes_its_validation_images(
    run: Any, files: tuple[Path, Path], tmp_path: Path
) -> None:
    names = [f"{n:06d}.jpg" for n in range(6)]
    split = tmp_path / "split.json"
    parts = {"train": names[:4], "validation": names[4:]}
    split.write_text(json.dumps(parts | {"seed": 0, "annotations": "truth.json"}))
    errors: list[str] = []
    given = (f"input={files[1]}", f"annotations={files[0]}", "output=store", f"split={split}")
    run(import_predictions, *given, errors=errors)
    assert PredictionStore("store").image_ids == ("000004.jpg", "000005.jpg")
    assert errors[0] == (f"note: 48 results of images that are not in split={split}, left out\n")
