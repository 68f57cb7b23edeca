"""The commands under other competitions: native raster, disjoint masks, no filler, COCO results."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from src.compare import main as compare_main
from src.postprocess.pipeline import postprocess
from src.predictions.store import PredictionStore, PredictionStoreWriter
from src.report import main as report_main
from src.rle import Bitmasks, format_rle, from_coco, parse_rle, to_coco
from src.score import main as score_main
from src.search import main as search_main
from src.validate_submission import main as validate_main
from tests.helpers.candidates import make_candidates, make_settings

SIZES_HW = [(37, 53), (64, 64), (71, 40), (25, 25)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of odd sizes with nuclei, their COCO file, and a store; the last has no detection."""
    folder = tmp_path_factory.mktemp("nuclei")
    (folder / "images").mkdir()
    images, annotations = [], []
    with PredictionStoreWriter(
        folder / "store", category_ids=[1], settings={"class_names": ["nucleus"]}
    ) as writer:
        for number, size_hw in enumerate(SIZES_HW):
            name = f"{number}.png"
            Image.new("RGB", size_hw[::-1]).save(folder / "images" / name)
            images.append({"id": 10 * number + 7, "file_name": name, "height": size_hw[0]})
            images[-1]["width"] = size_hw[1]
            count = 30 if number < len(SIZES_HW) - 1 else 0
            candidates = make_candidates(
                number, image_id=name, size_hw=size_hw, count=count, categories=1
            )
            candidates = replace(candidates, category_ids=candidates.category_ids + np.int16(1))
            writer.add(candidates)
            truth = postprocess(
                candidates,
                make_settings(score_threshold=0.6, suppress_overlaps=True),
                category_ids=[1],
                raster="native",
            )
            for counts in to_coco(truth.bitmasks.to_rle()):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": images[-1]["id"],
                        "category_id": 1,
                        "iscrowd": 0,
                        "segmentation": {"size": list(size_hw), "counts": counts},
                    }
                )
    categories = [{"id": 1, "name": "nucleus"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "train.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def refuse(call_program: Any) -> Callable[..., str]:
    """Run a program with a user's mistake; gives its line on stderr."""

    def call(program: Callable[[], Any], *arguments: str) -> str:
        ended = call_program(program, *arguments)
        assert ended.code == 2
        return str(ended.err)

    return call


@pytest.fixture
def arguments(folder: Path) -> tuple[str, ...]:
    return (
        f"predictions={folder}/store",
        f"annotations={folder}/train.json",
        "competition=dsb_2018",
        "postprocess=winner",
        "postprocess.remove_categories=[]",
        "postprocess.min_area_px=5",
        "postprocess.min_area_raster=native",
        "postprocess.suppress_overlaps=all",
    )


def test_a_submission_to_the_data_science_bowl(
    run: Callable[..., str], arguments: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    shown = run(*arguments)
    assert "4 images, a valid submission" in shown
    assert "filler" not in shown
    with (tmp_path / "submission.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"ImageId", "EncodedPixels"}
    assert rows[-1] == {"ImageId": "3", "EncodedPixels": ""}
    store = PredictionStore(folder / "store")
    for number, size_hw in enumerate(SIZES_HW[:-1]):
        texts = [row["EncodedPixels"] for row in rows if row["ImageId"] == str(number)]
        masks = Bitmasks.of(parse_rle(texts, size_hw).masks, size_hw)
        shared = masks.intersections_px(masks)
        assert not (shared - np.diag(np.diag(shared))).any()  # of all masks, not of a class alone
        assert masks.areas_px().min() >= 5
        assert store.size_hw(store.index_of(f"{number}.png")) == size_hw
    written = json.loads((tmp_path / "score.json").read_text())
    assert (written["raster"], written["averaging"], written["strict"]) == (
        "native",
        "pooled",
        True,
    )
    images = f"images={folder}/images"
    checked = run(
        "submission=submission.csv", "competition=dsb_2018", images, program=validate_main
    )
    assert checked.startswith("submission.csv: valid")
    scored = run(
        "submission=submission.csv",
        f"annotations={folder}/train.json",
        "competition=dsb_2018",
        program=score_main,
    )
    of_file = json.loads(scored.splitlines()[-1])
    assert of_file == {key: value for key, value in written.items() if key != "per_image"}
    assert 0.1 < of_file["competition_map"] < 0.99


def test_a_category_column_of_another_name_is_scored(
    run: Callable[..., str], arguments: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    columns = "competition.columns=[ImageId,EncodedPixels,CategoryId]"
    run(*arguments, columns)
    assert (tmp_path / "submission.csv").read_text().startswith("ImageId,EncodedPixels,CategoryId")
    written = json.loads((tmp_path / "score.json").read_text())
    truth = f"annotations={folder}/train.json"
    given = ("submission=submission.csv", truth, "competition=dsb_2018", columns)
    scored = json.loads(run(*given, program=score_main).splitlines()[-1])
    assert scored["competition_map"] == written["competition_map"] > 0.1


def test_a_sample_submission_names_images_without_their_suffix(
    run: Callable[..., str], arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "sample.csv").write_text("ImageId,EncodedPixels\n2,1 1\n0,1 1\n")
    run(*arguments, "sample_submission=sample.csv")
    with (tmp_path / "submission.csv").open(newline="") as file:
        names = [row["ImageId"] for row in csv.DictReader(file)]
    assert list(dict.fromkeys(names)) == ["2", "0"]


def test_search_report_and_comparison_follow_it(
    run: Callable[..., str], arguments: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    run(*arguments, "output=a.csv")
    (tmp_path / "score.json").rename(tmp_path / "a.json")
    run(*arguments, "postprocess.score_threshold=0.7", "output=b.csv")
    (tmp_path / "score.json").rename(tmp_path / "b.json")
    named = (f"annotations={folder}/train.json", "competition=dsb_2018")
    compared = run(f"a={tmp_path}/a.csv", f"b={tmp_path}/b.csv", *named, program=compare_main)
    by_file = json.loads(compared.splitlines()[-1])
    for side in "ab":
        kept = json.loads((tmp_path / f"{side}.json").read_text())
        assert by_file[side]["estimate"] == pytest.approx(kept["competition_map"])
    page = tmp_path / "report.html"
    run(
        "submission=a.csv",
        *named,
        f"images={folder}/images",
        "output=report.html",
        program=report_main,
    )
    assert page.read_text().count("nucleus") > 0
    found = run(
        *arguments[:3],
        "num_trials=8",
        "num_random_trials=4",
        "num_folds=2",
        "space.min_area_px=null",
        f"config_dir={tmp_path}/conf",
        program=search_main,
    )
    result = json.loads(found.splitlines()[-1])
    assert result["averaging"] == "pooled"
    assert result["images"] == len(SIZES_HW)
    kept = json.loads((tmp_path / "outputs/search/found/cross_validated.json").read_text())
    assert list(kept["per_image"]) == [f"{number}.png" for number in range(len(SIZES_HW))]
    held_out = result["scores"]["cross_validated"]["estimate"]
    assert np.mean(list(kept["per_image"].values())) == pytest.approx(held_out)
    compared = run(
        "a=b.json",
        f"b={tmp_path}/outputs/search/found/cross_validated.json",
        *named[1:],
        program=compare_main,
    )
    assert json.loads(compared.splitlines()[-1])["b"]["estimate"] == pytest.approx(held_out)


def test_another_metric_is_not_compared(
    run: Callable[..., str],
    refuse: Callable[..., str],
    arguments: tuple[str, ...],
    tmp_path: Path,
) -> None:
    run(*arguments)
    (tmp_path / "score.json").rename(tmp_path / "a.json")
    run(*arguments, "competition.thresholds=[0.5,0.75]")
    (tmp_path / "score.json").rename(tmp_path / "b.json")
    words = ("a=a.json", "b=b.json", "competition=dsb_2018")
    message = refuse(compare_main, *words)
    assert "thresholds must be [0.5, 0.75], as b=b.json was made with, got [0.5, 0.55" in message


def test_coco_results(
    run: Callable[..., str], arguments: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    given = [word for word in arguments if not word.startswith("competition")]
    run(*given, "competition=coco", "output=results.json")
    results = json.loads((tmp_path / "results.json").read_text())
    numbers = {10 * number + 7 for number in range(len(SIZES_HW) - 1)}
    assert {entry["image_id"] for entry in results} == numbers
    assert {entry["category_id"] for entry in results} == {1}
    written = json.loads((tmp_path / "score.json").read_text())
    scored = run(
        "submission=results.json",
        f"annotations={folder}/train.json",
        "competition=coco",
        program=score_main,
    )
    of_file = json.loads(scored.splitlines()[-1])
    assert of_file == {key: value for key, value in written.items() if key != "per_image"}
    assert (of_file["strict"], of_file["raster"]) == (False, "native")
    truth = COCO(str(folder / "train.json"))
    assert len(truth.loadRes(str(tmp_path / "results.json")).anns) == len(results)


def test_annotations_without_sizes_take_those_of_the_images(
    run: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    """The layout of the Bowl's own CSV: ids without suffix, no sizes, no categories."""
    content = json.loads((folder / "train.json").read_text())
    names = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    rows = ["ImageId,EncodedPixels"]
    for entry in content["annotations"]:
        key = entry["image_id"]
        masks = from_coco([entry["segmentation"]["counts"]], sizes[key]).masks
        rows.append(f"{names[key]},{format_rle(masks)[0]}")
    rows.append("3,")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    given = ("competition=dsb_2018", f"images={folder}/images", f"predictions={folder}/store")
    both = []
    for truth in (tmp_path / "labels.csv", folder / "train.json"):
        run(*given, f"annotations={truth}", "postprocess=winner_all_classes")
        both.append(json.loads((tmp_path / "score.json").read_text()))
    assert both[0] == both[1]
