"""The functions of the public API give what the commands give, to the last digit."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from src import (
    Candidates,
    Detections,
    InputError,
    PostprocessSettings,
    PredictionStore,
    PredictionStoreWriter,
    compare,
    draw,
    encode,
    open_annotations,
    postprocess,
    read_settings,
    score,
    sweep,
    validate_submission,
    write_example,
    write_submission,
)
from src.cli.postprocess import main as postprocess_main
from src.compare import main as compare_main
from src.export_coco import main as export_main
from src.rle import format_rle
from src.score import main as score_main
from tests.helpers.candidates import make_candidates

SIZE_HW = (400, 300)
NUM_IMAGES = 6
PRESET = PostprocessSettings.preset("winner_all_classes")


def make_image(number: int) -> Candidates:
    count = 40 if number < NUM_IMAGES - 1 else 0
    name = f"{number}.jpg"
    return make_candidates(number, image_id=name, size_hw=SIZE_HW, count=count, categories=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of six images (no candidates in the last), and the annotations of five of them."""
    folder = tmp_path_factory.mktemp("api")
    with PredictionStoreWriter(folder / "store", category_ids=range(46), settings={}) as writer:
        for number in range(NUM_IMAGES):
            writer.add(make_image(number))
    rules = PRESET.replace(score_threshold=0.6, mask_threshold=0.55)
    with (folder / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "EncodedPixels", "Height", "Width", "ClassId"])
        for number in (4, 2, 1, 0):
            found = postprocess(make_image(number), rules)
            masks, categories = found.masks_at(), found.category_ids.tolist()
            for mask, category in zip(masks, categories, strict=True):
                rows.writerow([str(number), format_rle([encode(mask)])[0], *SIZE_HW, category])
        rows.writerow([str(NUM_IMAGES - 1), "1 5", *SIZE_HW, 23])
        rows.writerow(["elsewhere", "1 5000", *SIZE_HW, 3])
    return folder


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
) -> Callable[..., dict[str, Any]]:
    """Run a command in an empty folder; gives the JSON of its last line."""
    monkeypatch.chdir(tmp_path)

    def call(program: Any, *arguments: str) -> dict[str, Any]:
        given = [text.format(folder) for text in arguments]
        monkeypatch.setattr(sys, "argv", ["program", *given])
        capsys.readouterr()
        program()
        last = capsys.readouterr().out.splitlines()[-1]
        return json.loads(last) if last.startswith("{") else {}

    return call


STORE = ("predictions={0}/store", "postprocess=winner_all_classes")
TRUTH = "annotations={0}/train.csv"


@pytest.mark.parametrize("averaging", ["per_class", "pooled"])
def test_score_of_detections_is_that_of_src_postprocess(
    run: Callable[..., dict[str, Any]], folder: Path, averaging: Any
) -> None:
    summary = run(postprocess_main, *STORE, TRUTH, f"averaging={averaging}")
    detections = postprocess(PredictionStore(folder / "store"), PRESET)
    annotations = open_annotations(folder / "train.csv")
    found = score(detections, annotations, averaging=averaging)
    assert 0.1 < found.competition_map < 0.95
    assert found.competition_map == summary["competition_map"]
    interval = found.interval()
    assert (interval.low, interval.high) == (
        summary["interval"]["low"],
        summary["interval"]["high"],
    )
    assert found.per_threshold.tolist() == summary["per_threshold"]
    table = found.to_frame()
    per_class = dict(zip(table.category_id.astype(str), table.score, strict=True))
    assert per_class == summary["per_class"]
    assert table.category[table.category_id == 23].tolist() == ["shoe"]
    written = json.loads(Path("score.json").read_text())["per_image"]
    assert dict(found.to_frame("image").itertuples(index=False)) == written
    assert "1 written images have no ground truth: not scored" in found.notes
    # and the same from a plain dictionary
    again = score(dict(detections), annotations, averaging=averaging)
    assert again.competition_map == found.competition_map


def test_score_of_a_file_is_that_of_src_score(
    run: Callable[..., dict[str, Any]], folder: Path
) -> None:
    run(postprocess_main, *STORE, "output=sub.csv")
    summary = run(score_main, "submission=sub.csv", TRUTH, "output=own.json")
    with open_annotations(folder / "train.csv") as annotations:
        found = score("sub.csv", annotations)
    assert found.competition_map == summary["competition_map"]
    assert found.images == summary["images"] == NUM_IMAGES
    assert found.interval().low == summary["interval"]["low"]
    with open_annotations(folder / "train.csv") as annotations:
        two = score("sub.csv", annotations, image_ids=["2.jpg", "1"])
        assert (
            score(
                postprocess(PredictionStore(folder / "store"), PRESET),
                annotations,
                image_ids=["2", "1.jpg"],
            ).per_image.tolist()
            == two.per_image.tolist()
        )
    assert two.image_ids == ("1", "2")
    with pytest.raises(InputError, match=r"no image has the id 'x\.jpg'"):
        score("sub.csv", open_annotations(folder / "train.csv"), image_ids=["x.jpg"])


def test_comparison_is_that_of_src_compare(
    run: Callable[..., dict[str, Any]], folder: Path
) -> None:
    run(postprocess_main, *STORE, "output=sub.csv")
    stored = ("b={0}/store", "b_postprocess=winner_all_classes")
    summary = run(
        compare_main,
        "a=sub.csv",
        *stored,
        "b_postprocess.score_threshold=0.8",
        TRUTH,
        "num_resamples=500",
        "seed=3",
    )
    annotations = open_annotations(folder / "train.csv")
    store = PredictionStore(folder / "store")
    other = postprocess(store, PRESET.replace(score_threshold=0.8))
    found = compare("sub.csv", other, annotations, num_resamples=500, seed=3)
    assert found.difference.estimate == summary["difference"]["estimate"] != 0
    assert found.difference.low == summary["difference"]["low"]
    assert found.difference.high == summary["difference"]["high"]
    assert found.probability_better == summary["probability_better"]
    assert found.verdict == summary["verdict"]
    # of scores and score files
    a, b = score(postprocess(store, PRESET), annotations), score(other, annotations)
    paired = compare(a, b, num_resamples=500)
    assert paired.difference.estimate == pytest.approx(found.difference.estimate)
    run(postprocess_main, *STORE, TRUTH)
    assert compare("score.json", b, num_resamples=500) == paired
    with pytest.raises(InputError, match="same averaging, got per_class and pooled"):
        compare("score.json", score(other, annotations, averaging="pooled"))
    with pytest.raises(InputError, match="one or more of the images to be scored, got none"):
        score(other, annotations, image_ids=["elsewhere"])
    with pytest.raises(InputError, match="annotations must be given"):
        compare(other, b)
    with pytest.raises(InputError, match=r"a alone has 4 \(the first: 0\.jpg\)"):
        compare(a, score(other, annotations, image_ids=["2"]))


def test_sweep_gives_the_scores_of_its_settings(folder: Path) -> None:
    store = PredictionStore(folder / "store")
    annotations = open_annotations(folder / "train.csv")
    grid = {"score_threshold": [0.4, 0.7], "nms_kind": ["class_wise", "class_agnostic"]}
    table = sweep(store, annotations, grid, settings=PRESET)
    assert len(table) == 4
    assert table.competition_map.is_monotonic_decreasing
    for row in table.itertuples():
        settings = PRESET.replace(score_threshold=row.score_threshold, nms_kind=row.nms_kind)
        interval = score(postprocess(store, settings), annotations).interval()
        assert (row.competition_map, row.low) == (interval.estimate, interval.low)
    with pytest.raises(InputError, match="score_threshold"):
        sweep(store, annotations, {"score_threshold": [2]})
    with pytest.raises(InputError, match="grid must have one or more values for each key"):
        sweep(store, annotations, {"score_threshold": []})


@pytest.mark.parametrize("name", ["imaterialist_2019", "imaterialist_2020"])
def test_submission_is_that_of_src_postprocess(
    run: Callable[..., dict[str, Any]], folder: Path, name: str
) -> None:
    Path("sample.csv").write_text("ImageId\n5.jpg\n1.jpg\n3.jpg\n")
    suffix = "" if name == "imaterialist_2019" else ".jpg"
    Path("sample.csv").write_text(Path("sample.csv").read_text().replace(suffix or "?", ""))
    given = (f"competition={name}", "sample_submission=sample.csv", "output=theirs.csv")
    run(postprocess_main, *STORE, *given)
    detections = postprocess(PredictionStore(folder / "store"), PRESET)
    report = write_submission(
        "own.csv", detections, sample_submission="sample.csv", competition=name
    )
    assert Path("own.csv").read_bytes() == Path("theirs.csv").read_bytes()
    assert (report.images, report.empty_images) == (3, 1)
    assert validate_submission("own.csv", sample_submission="sample.csv").violations == ()
    run(postprocess_main, *STORE, f"competition={name}", "output=all.csv")
    write_submission("own.csv", detections, competition=name)
    assert Path("own.csv").read_bytes() == Path("all.csv").read_bytes()


def test_images_that_a_sample_names_and_the_store_lacks(folder: Path, tmp_path: Path) -> None:
    detections = postprocess(PredictionStore(folder / "store"), PRESET)
    sample = tmp_path / "sample.csv"
    sample.write_text("ImageId\n9.jpg\n1.jpg\n")
    with pytest.raises(InputError, match=r"1 of the 2 images of .* have no predictions"):
        write_submission(tmp_path / "own.csv", detections, sample_submission=sample)
    write_submission(tmp_path / "own.csv", detections, sample_submission=sample, partial=True)
    assert (tmp_path / "own.csv").read_text().splitlines()[-1] == "9.jpg,1 1,23"


def test_a_store_that_lacks_images_is_refused_unless_they_suffice(tmp_path: Path) -> None:
    ids = [f"{number}.jpg" for number in range(4)]
    with PredictionStoreWriter(
        tmp_path, category_ids=range(46), settings={}, expected_image_ids=ids
    ) as writer:
        writer.add(make_image(0))
        writer.add_failed("1.jpg", "truncated")
    store = PredictionStore(tmp_path)
    with pytest.raises(InputError, match=r"2 of its 4 images are missing, the first is '2\.jpg'"):
        postprocess(store, PRESET)
    assert list(postprocess(store, PRESET, partial=True)) == ["0.jpg"]
    with pytest.raises(InputError, match=r"no predictions of image '1\.jpg'"):
        postprocess(store, PRESET, partial=True, image_ids=["1.jpg"])


def test_groups_of_the_competition_are_refused_for_other_data(tmp_path: Path) -> None:
    with PredictionStoreWriter(
        tmp_path, category_ids=[0, 1], settings={"class_names": ["cat", "dog"]}
    ) as writer:
        writer.add(make_candidates(0, categories=2))
    settings = PRESET.replace(remove_categories=["attribute_classes"])
    with pytest.raises(InputError, match="its own are 0 cat, 1 dog"):
        postprocess(PredictionStore(tmp_path), settings)


def grown(mask: np.ndarray) -> np.ndarray:
    """A mask with the eight neighbours of each of its pixels."""
    padded = np.pad(mask.astype(bool), 1)
    height, width = mask.shape
    shifts = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.logical_or.reduce(shifts)


# of pycocotools with numpy 2
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_detections_as_masks_coco_and_table(
    run: Callable[..., dict[str, Any]], folder: Path
) -> None:
    detections = postprocess(PredictionStore(folder / "store"), PRESET)
    found = detections["2.jpg"]
    assert isinstance(found, Detections)
    assert found.masks.shape == (len(found), 512, 512)
    results = found.to_coco(image_number=7)
    drawn = np.stack([coco_mask.decode(result["segmentation"]) for result in results])
    assert np.array_equal(drawn, found.masks_at())
    assert found.masks_at().shape == (len(found), *SIZE_HW)
    assert found.masks_at((40, 30)).shape == (len(found), 40, 30)
    run(export_main, *STORE, "output=results.json")
    other = dict.fromkeys(("0.jpg", "1.jpg", "3.jpg", "4.jpg", "5.jpg"), 0)
    exported = json.loads(Path("results.json").read_text())
    assert detections.to_coco() == exported
    assert {one["image_id"] for one in detections.to_coco({"2.jpg": 7} | other)} == {0, 7}
    exported = [one for one in exported if one["image_id"] == 3]
    assert len(exported) == len(results)
    for own, theirs in zip(results, exported, strict=True):
        assert own["bbox"] == theirs["bbox"]
        assert (own["category_id"], own["score"]) == (theirs["category_id"], theirs["score"])
        masks = [coco_mask.decode(one["segmentation"]) for one in (own, theirs)]
        for one, other_mask in (masks, masks[::-1]):  # equal but for a pixel at the edge
            assert not np.any(one & ~grown(other_mask))
    table = found.to_frame()
    assert table.area_px.tolist() == found.masks.sum(axis=(1, 2)).tolist()
    assert len(detections.to_frame()) == sum(map(len, detections.values()))
    assert detections["5.jpg"].to_frame().empty
    assert postprocess(detections.store, PRESET, image_ids=[]).to_frame().empty
    assert detections["5.jpg"].to_coco(1) == []
    assert detections["5.jpg"].masks_at().shape == (0, *SIZE_HW)
    with pytest.raises(KeyError, match=r"x\.jpg"):
        detections["x.jpg"]
    annotations = open_annotations(folder / "train.csv")
    on_another = postprocess(detections.store, PRESET, raster="long_edge_1024")
    wanted = score(postprocess(detections.store, PRESET), annotations)
    assert score(on_another, annotations).per_image.tolist() == wanted.per_image.tolist()
    with pytest.raises(InputError, match=r"masks must be on the ground truth's raster of 512x512"):
        score({"1.jpg": on_another["1.jpg"]}, annotations)


def test_candidates_of_a_store_as_a_table(folder: Path) -> None:
    store = PredictionStore(folder / "store")
    table = store.to_frame()
    assert len(table) == 40 * (NUM_IMAGES - 1)
    own = table[table.image_id == "3.jpg"]
    candidates = store.candidates(3)
    assert own.score.tolist() == candidates.scores.tolist()
    assert own[["x_min", "y_min", "x_max", "y_max"]].to_numpy().tolist() == (
        candidates.boxes_xyxy.tolist()
    )


def test_annotations(tmp_path: Path) -> None:
    write_example(tmp_path)
    annotations = open_annotations(tmp_path / "data" / "train.csv", images=tmp_path / "data/train")
    assert annotations.image_path("1.png") == tmp_path / "data" / "train" / "1.png"
    assert annotations.instances("1.png").category_ids.tolist() == [1, 23]
    assert annotations.to_frame().columns.tolist()[-1] == "area_px"
    with pytest.raises(InputError, match=r"train\.csv: no image has the id 'x'"):
        annotations.instances("x")
    with pytest.raises(InputError, match="images must be a folder to find an image in it"):
        open_annotations(tmp_path / "data" / "train.csv").image_path("1.png")
    with pytest.raises(InputError, match=r"missing\.csv"):
        open_annotations(tmp_path / "missing.csv")


def test_what_annotations_keep_on_the_disk_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_example(tmp_path / "example")
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(kept))
    annotations = open_annotations(tmp_path / "example" / "data" / "train.csv")
    assert list(kept.iterdir())
    del annotations
    assert not list(kept.iterdir())
    with open_annotations(tmp_path / "example" / "data" / "train.csv"):
        assert list(kept.iterdir())
    assert not list(kept.iterdir())


def test_drawing(tmp_path: Path) -> None:
    write_example(tmp_path)
    detections = postprocess(PredictionStore(tmp_path / "predictions_validation"), PRESET)
    image = tmp_path / "data" / "train" / "1.png"
    annotations = open_annotations(tmp_path / "data" / "train.csv")
    alone = draw(image, detections["1.png"], output=tmp_path / "alone.png", edge_px=200)
    assert alone.shape == (200, 200, 3)
    row = draw(image, detections["1.png"], annotations, edge_px=200)
    assert row.shape == (200, 3 * 200 + 20, 3)
    named = draw(image, detections["1.png"], category_names={23: "shoe"}, edge_px=200)
    assert not np.array_equal(named, alone)
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    assert draw(pixels, detections["1.png"]).shape == (640, 640, 3)
    assert (tmp_path / "alone.png").stat().st_size > 1000
    with pytest.raises(InputError, match=r"output must be an image file such as .*, got .*a\.txt"):
        draw(image, detections["1.png"], output=tmp_path / "a.txt")
    rows = "ImageId,EncodedPixels,Height,Width,ClassId\nx.jpg,1 5,9,9,3\n"
    (tmp_path / "other.csv").write_text(rows)
    other = open_annotations(tmp_path / "other.csv")
    with pytest.raises(InputError, match=r"no image has the id '1\.png'"):
        draw(image, detections["1.png"], other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", r"mine\.yaml: must hold keys with values, got \[1, 2\]"),
        ("1: 2", "must hold keys with values, got {1: 2}"),
        ("defaults: winner", r"defaults must be a list of presets, got 'winner' \(.*mine\.yaml\)"),
        ("defaults: [{override a: b}]", "defaults must be a list of presets"),
        ("a: [", "not readable as YAML"),
        ("defaults: [none_such]", "preset must be one of default, unchanged, winner"),
        ("score_threshold: 3", "score_threshold"),
        ("threshold: 0.3", "threshold"),
    ],
)
def test_settings_that_are_not_legal(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_settings(tmp_path / "mine.yaml")


@pytest.mark.parametrize("name", ["default", "winner", "winner_all_classes"])
def test_presets_are_the_options_of_the_configuration(name: str) -> None:
    path = Path(__file__).parents[2] / "conf" / "postprocess" / f"{name}.yaml"
    assert read_settings(path) == PostprocessSettings.preset(name)


def test_an_example_leaves_other_folders_alone(tmp_path: Path) -> None:
    write_example(tmp_path / "new")
    write_example(tmp_path / "new")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    with pytest.raises(InputError, match="directory must be a new or an empty folder"):
        write_example(tmp_path / "full")
    with PredictionStoreWriter(
        tmp_path / "demo" / "predictions_validation", category_ids=range(46), settings={}
    ) as writer:
        writer.add(make_image(0))
    with pytest.raises(InputError, match="holds predictions of another run"):
        write_example(tmp_path / "demo")
