"""``python -m src.fuse`` and ``fusion=late``: stores of any models made one; what does not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.errors import InputError
from src.fuse import open_stores
from src.mmdet_bridge.cascade.inference import predict_candidates
from src.modules.ensemble import load_models
from src.postprocess.late_fusion import LateFusion, fuse
from src.predictions.store import PredictionStore
from tests.helpers.cascades import make_view
from tests.helpers.predictions import checkpoint, run, write_folder
from tests.helpers.stores import check_same, make_images, make_writer, write_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("predict"))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "src.fuse", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    """Two models' predictions of the same six images."""
    directories = [tmp_path / "a", tmp_path / "b"]
    for directory, exact in zip(directories, (0.01, 0.02), strict=True):
        images = make_images(0, 6, count=30, complete_above_score=exact)
        write_store(directory, images, settings={"model": directory.name})
    return directories


def test_the_command_writes_a_store_that_says_what_made_it(
    stores: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "fused"
    given = f"predictions=[{stores[0]},{stores[1]}]"
    result = command(given, f"output={output}", "weights=[2,1]", "iou_threshold=0.6")
    assert result.returncode == 0, result.stderr
    fused = PredictionStore(output)
    counts = [fused.count(index) for index in range(6)]
    assert result.stdout == f"{output}: {sum(counts)} detections in 6 images, of 2 stores\n"
    assert min(counts) > 10
    settings = LateFusion(
        score_threshold=0.05, nms_iou_threshold=0.5, max_per_image=100, iou_threshold=0.6
    )
    members = [PredictionStore(directory) for directory in stores]
    for index in range(6):
        of_image = [member.candidates(index) for member in members]
        check_same(fused.candidates(index), fuse(of_image, settings, weights=[2, 1]), "float16")
    assert fused.settings["fusion"]["iou_threshold"] == 0.6
    assert fused.settings["weights"] == [2, 1]
    assert [one["settings"]["model"] for one in fused.settings["predictions"]] == ["a", "b"]

    again = command(given, f"output={output}", "weights=[2,1]")
    assert again.returncode == 2
    assert again.stderr == (
        f"error: {output}: holds predictions of another run; give another folder or delete it. "
        "Different: settings.fusion.iou_threshold: 0.6 there, 0.55 here\n"
    )


@pytest.mark.parametrize(
    ("changes", "images", "message"),
    [
        (
            {"category_ids": range(45)},
            make_images(0, 6, count=3, categories=45),
            r"category_ids of .*other must be \[0, .*\(46\), .*a has, got .*11, \.\.\.\] \(45\)",
        ),
        (
            {},
            make_images(0, 5, count=3),
            r"other: 1 of the 6 images of .*a have no predictions, the first is '005\.jpg'; run",
        ),
        (
            {},
            make_images(0, 7, count=3),
            r"a: 1 of the 7 images of .*other have no predictions, the first is '006\.jpg'; run",
        ),
        (
            {},
            make_images(0, 6, count=3, size_hw=(9, 8)),
            r"size of image 000\.jpg must be \(480, 360\) px .*, got \(9, 8\) \(",
        ),
    ],
)
def test_stores_that_do_not_fit(
    stores: list[Path], tmp_path: Path, changes: dict[str, Any], images: list[Any], message: str
) -> None:
    write_store(tmp_path / "other", images, **changes)
    with pytest.raises(InputError, match=message):
        open_stores([str(stores[0]), str(tmp_path / "other")])


def test_images_that_failed_in_every_store_are_not_dropped(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with make_writer(tmp_path / name) as writer:
            writer.add(make_images(1, 2)[0])
            writer.add_failed("x.jpg", "x.jpg: truncated")
    message = r"a: 1 of the 2 images of its split have no pred.* 'x\.jpg' \(x\.jpg: truncated\)"
    with pytest.raises(InputError, match=message):
        open_stores([str(tmp_path / "a"), str(tmp_path / "b")])


@pytest.mark.parametrize("given", ["a", []])
def test_no_list_of_stores(given: Any) -> None:
    with pytest.raises(
        InputError, match=r"predictions must be a list of prediction stores, .*, got"
    ):
        open_stores(given)


@pytest.mark.slow
def test_predicting_with_late_fusion_is_fusing_each_model_on_each_view(
    folder: Path, tmp_path: Path
) -> None:
    paths = [checkpoint(folder, 0), checkpoint(folder, 1)]
    given = [f"checkpoint=[{paths[0]},{paths[1]}]", "ensemble.model_weights=[1,2]", "tta=flip"]
    store = run(folder, tmp_path, *given, "fusion=late", "fusion.score_threshold=0.25")
    assert store.settings["fusion"]["kind"] == "late"
    assert (store.meta.min_score, store.meta.max_candidates) == (0.0, None)
    found = store.candidates(store.index_of("a.jpg"))

    image = np.asarray(Image.open(folder / "test" / "a.jpg"))  # 120 x 90 px
    views = [make_view(image, (85, 64), flip=flip) for flip in (False, True)]
    alone = [
        predict_candidates(
            [member], [view], category_ids=range(5), min_score=0.25, max_candidates=1000
        )[0]
        for member in load_models(paths, detector={}, num_classes=5, category_ids=None)
        for view in views
    ]
    settings = LateFusion(
        score_threshold=0.25, nms_iou_threshold=0.5, max_per_image=100, iou_threshold=0.55
    )
    wanted = fuse(alone, settings, weights=[1, 1, 2, 2])
    assert len(found) == len(wanted) > 10
    assert found.category_ids.tolist() == wanted.category_ids.tolist()
    assert np.allclose(found.scores, wanted.scores, rtol=1e-5)
    assert np.allclose(found.boxes_xyxy, wanted.boxes_xyxy, rtol=0, atol=1e-3)
    masks = wanted.mask_probabilities  # the store holds float16
    assert np.allclose(found.mask_probabilities, masks, rtol=0, atol=1e-3)
    assert found.complete_above_score == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("fusion.kind=early", r"fusion\.kind must be cascade or late, got 'early'"),
        ("fusion.iou_threshold=2", r"fusion\.iou_threshold must be a number from 0 to 1, got 2"),
    ],
)
def test_bad_values_of_fusion(folder: Path, tmp_path: Path, changes: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(folder, tmp_path, f"checkpoint={checkpoint(folder, 0)}", "fusion=late", changes)
