"""The masks of generated images: valid, nested, disjoint, of what is visible."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from src.annotations.categories import CATEGORY_INSTANCES, IMATERIALIST_2019_CATEGORIES
from src.rle import Rle, RleBatch, decode
from src.synthetic.fabrics import Fabric
from src.synthetic.image import draw_image, paint
from src.synthetic.kinds import FIRST_PART, LAST_GARMENT_WITH_ATTRIBUTES, Kind
from src.synthetic.masks import visible_objects
from src.synthetic.records import class_id, image_id
from src.synthetic.scene import random_scene, random_size
from tests.helpers.synthetic_data import Row, by_image, read_rows


@pytest.fixture(scope="module")
def annotated(images: Path) -> list[tuple[tuple[int, int], list[Row]]]:
    """Displayed size and rows of each image."""
    found = []
    for split, table in (("train", "train.csv"), ("test", "test_truth.csv")):
        for name, rows in by_image(read_rows(images / table)).items():
            with Image.open(images / split / name) as image:
                width, height = ImageOps.exif_transpose(image).size
            found.append(((height, width), rows))
    return found


@pytest.fixture(scope="module")
def many_kinds() -> list[list[Kind]]:
    """Kinds of the objects of 320 images."""
    kinds = []
    for index in range(320):
        rng = np.random.default_rng([99, index])
        scene = random_scene(rng, random_size(rng, 224), 0.5, 0.5)
        kinds.append([kind for kind, _, _ in visible_objects(scene)])
    return kinds


def test_runs_are_valid_for_the_displayed_image(annotated) -> None:
    for size_hw, rows in annotated:
        for row in rows:
            mask = Rle(row.runs.astype(np.int32), size_hw)
            assert RleBatch.of([mask]).problems() == {}
            assert row.mask(size_hw).sum() >= 12


def test_objects_of_one_class_are_disjoint(annotated) -> None:
    pairs = 0
    for size_hw, rows in annotated:
        for one, other in combinations(rows, 2):
            if one.category == other.category:
                pairs += 1
                assert not (one.mask(size_hw) & other.mask(size_hw)).any()
    assert pairs > 30


def test_parts_lie_wholly_in_one_garment(annotated) -> None:
    """No pixel of a sleeve, pocket, ... is outside of the garment that has it."""
    parts = 0
    for size_hw, rows in annotated:
        garments = [row.mask(size_hw) for row in rows if row.category < FIRST_PART]
        for row in rows:
            if row.category >= FIRST_PART:
                parts += 1
                mask = row.mask(size_hw)
                outside = [int((mask & ~garment).sum()) for garment in garments]
                assert 0 in outside, (row.image_id, row.class_id)
    assert parts > 60


def test_garments_hide_each_other() -> None:
    """Each pixel shows one garment: what is in front takes it from what is behind."""
    shared = total = 0
    for index in range(30):
        image = draw_image(np.random.default_rng([3, index]), 160, 0.5, 0.5)
        masks = [decode(o.mask) for o in image.objects if o.kind < FIRST_PART]
        count = np.sum(masks, axis=0)
        shared += int((count > 1).sum())
        total += int((count > 0).sum())
    assert total > 0
    assert shared == 0


def test_masks_are_where_the_image_has_the_object() -> None:
    """A garment in another colour changes the image on its mask and nowhere else."""
    checked = 0
    for index in range(12):
        rng = np.random.default_rng([8, index])
        scene = random_scene(rng, random_size(rng, 256), 0.5, 0.0)
        pieces = [piece for figure in scene.figures for piece in figure.drawing.pieces]
        for piece in pieces:
            piece.marks.clear()  # they keep their own colours
        before = paint(np.random.default_rng(0), scene)
        ground_truth = [(kind, decode(mask)) for kind, _, mask in visible_objects(scene)]
        parts = np.any([mask for kind, mask in ground_truth if kind >= FIRST_PART], axis=0)
        if len(scene.figures) > 1:
            continue
        objects = scene.figures[0].drawing.objects
        for kind, mask in ground_truth:
            if kind >= FIRST_PART or [entry.kind for entry in objects].count(kind) != 1:
                continue
            number = next(i for i, entry in enumerate(objects) if entry.kind == kind)
            own = [piece for piece in pieces if number in piece.objects]
            fabrics = [piece.fabric for piece in own]
            for piece in own:
                piece.fabric = Fabric((255, 0, 255) if piece.fabric.colour[1] > 99 else (0, 255, 0))
            after = paint(np.random.default_rng(0), scene)
            for piece, fabric in zip(own, fabrics, strict=True):
                piece.fabric = fabric
            changed = np.abs(after.astype(int) - before).max(axis=2).astype(np.float32)
            share = cv2.resize((changed > 4).astype(np.float32), scene.size_hw[::-1], None, 0, 0, 3)
            around = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            inner = cv2.erode((mask & ~parts).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            stray = int((share > 0.5)[~around].sum())
            assert stray <= max(3, 0.01 * mask.sum()), (index, kind, stray, int(mask.sum()))
            if inner.any():
                assert (share > 0.5)[inner].mean() > 0.97, kind
                checked += 1
    assert checked > 20


def test_frequencies_follow_the_real_data(many_kinds) -> None:
    counts = np.bincount([kind for kinds in many_kinds for kind in kinds], minlength=46)
    real = np.array([CATEGORY_INSTANCES[index] for index in range(46)])
    order = np.argsort(np.argsort(real)), np.argsort(np.argsort(counts, kind="stable"))
    assert np.corrcoef(*order)[0, 1] > 0.93
    common = real / 45_195 > 0.13  # of rarer kinds the sample has too few to compare shares
    ratio = counts[common] / len(many_kinds) / (real[common] / 45_195)
    assert ratio.min() > 0.6
    assert ratio.max() < 1.6


def test_about_seven_objects_an_image(many_kinds) -> None:
    assert 6.6 < np.mean([len(kinds) for kinds in many_kinds]) < 8.2
    assert min(len(kinds) for kinds in many_kinds) >= 1


def test_clothes_go_together(many_kinds) -> None:
    uppers = {Kind.TOP, Kind.SHIRT, Kind.SWEATER}
    lowers = {Kind.PANTS, Kind.SHORTS, Kind.SKIRT}
    single = 0
    for kinds in many_kinds:
        one_piece = {Kind.DRESS, Kind.JUMPSUIT} & set(kinds)
        most = max(kinds.count(kind) for kind in (*uppers, *lowers, Kind.DRESS, Kind.JUMPSUIT))
        couple = kinds.count(Kind.SHOE) > 2 or most > 1 or kinds.count(Kind.SLEEVE) > 2
        if one_piece and not couple and not uppers & set(kinds):
            assert not lowers & set(kinds)
            single += 1
        assert kinds.count(Kind.SHOE) <= 4
        assert kinds.count(Kind.SLEEVE) <= 4
    assert single > 80


def test_kinds_are_the_projects_categories() -> None:
    assert len(Kind) == len(IMATERIALIST_2019_CATEGORIES) == 46
    for category in IMATERIALIST_2019_CATEGORIES:
        name = category.name.replace(" ", "_").upper()
        assert Kind(category.id).name in name


def test_attributes_share_and_where_they_are() -> None:
    rng = np.random.default_rng(0)
    real = np.array([CATEGORY_INSTANCES[index] for index in range(46)], dtype=float)
    kinds = rng.choice(46, size=40_000, p=real / real.sum())
    labels = [class_id(rng, Kind(kind), (13, 24), 0.035) for kind in kinds]
    with_some = [label for label in labels if "_" in label]
    assert 0.03 < len(with_some) / len(labels) < 0.04
    assert {"1_13_24", "10_13_24", "6_13_24"} <= set(with_some)
    strange = [label for label in with_some if int(label.split("_")[0]) > 12]
    assert {int(label.split("_")[0]) for label in strange} <= {27, 28, 33}
    assert 0 < len(strange) < 0.05 * len(with_some)
    assert not any("_" in class_id(rng, Kind(kind), (13,), 0.0) for kind in kinds[:5000])


def test_attributes_are_known_and_ascend() -> None:
    seen = set()
    for index in range(60):
        image = draw_image(np.random.default_rng([4, index]), 96, 0.5, 0.5)
        for item in image.objects:
            if item.kind <= LAST_GARMENT_WITH_ATTRIBUTES:
                assert item.attributes
                assert list(item.attributes) == sorted(set(item.attributes))
                assert set(item.attributes) <= set(range(92))
                seen.update(item.attributes)
            else:
                assert item.attributes == ()
    assert len(seen) > 25


@pytest.mark.parametrize("long_edge", [64, 320])
@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_any_size_and_difficulty(long_edge: int, difficulty: float) -> None:
    for index in range(4):
        rng = np.random.default_rng([6, index])
        image = draw_image(rng, long_edge, difficulty, difficulty)
        assert max(image.size_hw) == long_edge
        assert image.image.dtype == np.uint8
        assert image.image.std() > 10
        assert image.objects


@pytest.mark.slow
def test_an_image_of_24_megapixels() -> None:
    image = draw_image(np.random.default_rng(2), 6000, 0.5, 0.5)
    assert max(image.size_hw) == 6000
    garment = max(image.objects, key=lambda item: len(item.mask.runs))
    assert len(garment.mask.runs) > 500
    assert RleBatch.of([garment.mask]).problems() == {}


def test_image_ids() -> None:
    assert image_id(0, "train", 0) == image_id(0, "train", 0)
    names = {
        image_id(s, split, i) for s in (0, 1) for split in ("train", "test") for i in range(50)
    }
    assert len(names) == 200
