"""Folders of mask images: instances against brute force and pycocotools; caches of them."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage

from src.annotations.categories import Category, LabelDescriptions, write_label_descriptions
from src.annotations.conversion import convert
from src.annotations.formats import ReadingOptions
from src.annotations.mask_images import open_mask_images
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.rows import NO_INSTANCE
from src.annotations.store import AnnotationStore
from src.annotations.store_builder import build_store, open_or_build
from src.errors import InputError
from src.rle import decode
from tests.helpers.mask_folders import blocks, save_palette, write_images, write_instance_files
from tests.helpers.masks import many_examples

SIZE_HW = (20, 30)
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


def settings(**values) -> MaskImageSettings:
    return MaskImageSettings.from_config(values)


def read(source, directory, **options) -> AnnotationStore:
    options["mask_images"] = settings(**options.pop("mask_images", {}))
    build_store(source, directory, ReadingOptions(**options))
    return AnnotationStore(directory)


def instances_of(store, index=0) -> list[tuple[int, bool, np.ndarray]]:
    found = store.instances(index)
    crowd = store.is_crowd(index).tolist()
    drawn = [decode(mask) for mask in found.masks]
    return list(zip(found.category_ids.tolist(), crowd, drawn, strict=True))


def rows_of(folder, **values) -> list[tuple[int, bool, np.ndarray]]:
    """Read the instances of a folder of one image, without writing a store."""
    (block,) = open_mask_images(folder, settings(**values)).blocks
    assert not block.bad_rows
    assert block.category_ids[0] == NO_INSTANCE
    assert block.images[0].file_name == "a.jpg"
    drawn = [decode(mask) for mask in block.masks.masks]
    return list(zip(block.category_ids, block.is_crowd, drawn, strict=True))[1:]


def same_instances(found, wanted) -> None:
    assert [(category, crowd) for category, crowd, _ in found] == [one[:2] for one in wanted]
    for (_, _, mask), (_, _, expected) in zip(found, wanted, strict=True):
        assert_array_equal(mask, expected)


@pytest.fixture
def dsb(tmp_path):
    """Three images: with three masks, one of them empty; with two; with none."""
    masks = {
        "b1": [*blocks(SIZE_HW, (0, 0, 4, 4), (10, 5, 20, 30)), np.zeros(SIZE_HW, dtype=np.bool_)],
        "a2": blocks(SIZE_HW, (3, 3, 9, 9), (9, 9, 12, 20)),
        "c3": [],
    }
    return write_instance_files(tmp_path / "dsb", masks, size_hw=SIZE_HW)


def test_instance_files_give_pycocotools_the_areas_of_the_files(tmp_path, dsb):
    report = convert(
        dsb,
        tmp_path / "o.json",
        ReadingOptions(mask_images=settings(classes={7: "nucleus"})),
    )
    assert (report.input_format, report.images, report.instances) == ("mask_images", 3, 5)
    assert report.read.images_without_instances == 1
    assert report.read.empty_masks == 1
    coco = COCO(str(tmp_path / "o.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["nucleus"]
    seen = []
    for image in coco.loadImgs(coco.getImgIds()):
        name = image["file_name"].split("/")[0]
        assert image["file_name"] == f"{name}/images/{name}.png"
        files = sorted((dsb / name / "masks").iterdir())
        areas = [int((np.asarray(Image.open(file)) > 0).sum()) for file in files]
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert [one["area"] for one in found] == areas
        assert [int(coco.annToMask(one).sum()) for one in found] == areas
        seen += areas
    assert sorted(seen) == [0, 16, 33, 36, 250]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_instance_files_of_every_kind_are_read_alike(tmp_path, dsb, mode):
    wanted = instances_of(read(dsb, tmp_path / "l.store"), 1)
    for path in dsb.glob("*/masks/*.png"):
        image = Image.open(path)
        if mode == "P":
            save_palette(np.asarray(image) // 255, path)
        else:
            image.convert(mode).save(path)
    same_instances(instances_of(read(dsb, tmp_path / "m.store"), 1), wanted)


def test_instances_of_an_image_come_in_the_order_of_their_files(tmp_path, dsb):
    for number in range(3, 12):
        (mask,) = blocks(SIZE_HW, (0, number, 1, number + 1))
        Image.fromarray(mask).save(dsb / "c3" / "masks" / f"{number:02d}.png")
    store = read(dsb, tmp_path / "a.store")
    boxes = store.instances(2).boxes_xyxy
    assert boxes[:, 0].tolist() == list(range(3, 12))
    assert [image.image_id for image in store.images] == [
        f"{name}/images/{name}.png" for name in ("a2", "b1", "c3")
    ]


def test_masks_that_share_pixels_are_counted_or_refused(tmp_path, dsb):
    (mask,) = blocks(SIZE_HW, (8, 8, 11, 11))  # a pixel of each of the others of a2, and more
    Image.fromarray(mask).save(dsb / "a2" / "masks" / "9.png")
    store = read(dsb, tmp_path / "a.store")
    note = "share pixels with an earlier one of their image, kept: 1 (the first: a2/masks/9.png, 5"
    assert any(note in one for one in store.notes), store.notes
    with pytest.raises(InputError, match=r"a2/masks/9\.png, .*must share no pixel with .* got 5$"):
        read(dsb, tmp_path / "b.store", mask_images={"overlaps": "refuse"})
    store = read(dsb, tmp_path / "b.store", mask_images={"overlaps": "refuse"}, on_bad_rows="skip")
    assert store.num_instances == 5


def test_a_threshold_reads_smoothed_masks(tmp_path, dsb):
    path = dsb / "a2" / "masks" / "0.png"
    values = np.array(Image.open(path))
    values[3, 3:6] = [127, 128, 200]
    Image.fromarray(values).save(path)
    with pytest.raises(InputError, match=r"0\.png, .* must be 0 and one other, got 127 beside 255"):
        read(dsb, tmp_path / "a.store")
    found = instances_of(read(dsb, tmp_path / "a.store", mask_images={"threshold": 128}))
    assert_array_equal(found[0][2], values >= 128)


def test_images_in_another_folder_are_found_by_id_or_name(tmp_path, dsb):
    images = tmp_path / "flat"
    images.mkdir()
    for path in dsb.glob("*/images/*.png"):
        path.rename(images / path.name)
    store = read(dsb, tmp_path / "a.store", images_directory=images)
    assert [image.file_name for image in store.images] == ["a2.png", "b1.png", "c3.png"]
    with pytest.raises(InputError, match="a2: images must hold the image of the masks, got none"):
        read(dsb, tmp_path / "b.store")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("masks")


@many_examples
@given(data=st.data())
def test_instance_ids_of_one_class_against_each_id_alone(folder, data):
    ids = data.draw(hnp.arrays(np.uint16, SHAPES, elements=st.sampled_from([0, 1, 2, 300, 65535])))
    (folder / "one").mkdir(exist_ok=True)
    Image.fromarray(ids).save(folder / "one" / "a.png")
    found = rows_of(folder / "one", layout="instance_ids", image_suffix=".jpg", classes={4: "cell"})
    same_instances(found, [(4, False, ids == value) for value in np.unique(ids) if value])


def test_the_border_of_pascal_voc_is_no_instance(tmp_path):
    ids = np.array([[0, 1, 255, 2]], dtype=np.uint8)
    (tmp_path / "a").mkdir()
    save_palette(ids, tmp_path / "a" / "a.png")
    options = {"layout": "instance_ids", "image_suffix": ".jpg"}
    assert len(rows_of(tmp_path / "a", **options)) == 3
    assert len(rows_of(tmp_path / "a", **options, ignored_values=[0, 255])) == 2


CITY = {
    "layout": "instance_ids",
    "class_divisor": 1000,
    "classes": {24: "person", 26: "car"},
    "ignored_values": [33],
    "mask_suffix": "_gtFine_instanceIds.png",
    "image_suffix": ".jpg",
}


@many_examples
@given(data=st.data())
def test_instance_ids_with_classes_against_each_id_alone(folder, data):
    values = [0, 3, 24, 26, 24000, 24001, 26000, 26999, 33000]
    ids = data.draw(hnp.arrays(np.uint16, SHAPES, elements=st.sampled_from(values)))
    (folder / "city").mkdir(exist_ok=True)
    Image.fromarray(ids).save(folder / "city" / "a_gtFine_instanceIds.png")
    wanted = [
        (int(value) if value < 1000 else int(value) // 1000, bool(value < 1000), ids == value)
        for value in np.unique(ids)
        if value in (24, 26) or value // 1000 in (24, 26)
    ]
    same_instances(rows_of(folder / "city", **CITY), wanted)


def test_regions_of_no_class_are_counted(tmp_path):
    ids = np.array([[0, 3, 7, 24001, 24]], dtype=np.uint16)
    (tmp_path / "city").mkdir()
    for name in ("a", "b"):
        Image.fromarray(ids).save(tmp_path / "city" / f"{name}_gtFine_instanceIds.png")
    store = read(tmp_path / "city", tmp_path / "a.store", mask_images=CITY)
    assert store.notes == (
        "regions of ids below 1000 that are no class, left out: 4 (the first: "
        "a_gtFine_instanceIds.png, value 3)",
    )
    assert (store.num_instances, store.num_crowd_regions) == (4, 2)


LABELS = {
    "layout": "label_maps",
    "image_suffix": ".jpg",
    "classes": {
        11: {"name": "two values", "values": [1, 3]},
        12: {"name": "parts", "values": [2, 4], "instances": "components"},
    },
}


@many_examples
@given(data=st.data(), connectivity=st.sampled_from([4, 8]), least=st.integers(0, 3))
def test_label_maps_against_components_by_scipy(folder, data, connectivity, least):
    labels = data.draw(hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 4)))
    kind = data.draw(st.sampled_from(["grey", "palette", "mat"]))
    (folder / kind).mkdir(exist_ok=True)
    if kind == "grey":
        Image.fromarray(labels).save(folder / kind / "a.png")
    elif kind == "palette":
        save_palette(labels, folder / kind / "a.png")
    else:
        scipy.io.savemat(folder / kind / "a.mat", {"labels": labels.astype(np.float64)})
    found = rows_of(folder / kind, **LABELS, connectivity=connectivity, min_area_px=least)
    both, parts = np.isin(labels, [1, 3]), np.isin(labels, [2, 4])
    components, count = ndimage.label(parts, np.ones((3, 3)) if connectivity == 8 else None)
    wanted = [(11, False, both)] * bool(both.any())
    wanted += [(12, False, components == number) for number in range(1, count + 1)]

    def ordered(instances):
        return sorted(instances, key=lambda one: (one[0], one[2].tobytes()))

    same_instances(ordered(found), ordered(one for one in wanted if one[2].sum() >= least))


def test_images_are_found_by_the_name_of_their_label_map(tmp_path):
    labels = np.zeros(SIZE_HW, dtype=np.uint8)
    labels[2:5, 2:5] = 1
    write_images(tmp_path / "images", ["x/a.png", "x/b.jpg", "c.bmp"], size_hw=SIZE_HW)
    for name in ("x/a.png", "x/b.png", "c.mat"):
        path = tmp_path / "maps" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("mat"):
            scipy.io.savemat(path, {"m": labels})
        else:
            Image.fromarray(labels).save(path)
    options = {"layout": "label_maps", "classes": {1: "hat"}}
    store = read(
        tmp_path / "maps",
        tmp_path / "a.store",
        images_directory=tmp_path / "images",
        mask_images=options,
    )
    assert [image.file_name for image in store.images] == ["c.bmp", "x/a.png", "x/b.jpg"]
    assert store.num_instances == 3
    with pytest.raises(InputError, match="images must be the folder of the images, or mask_images"):
        read(tmp_path / "maps", tmp_path / "b.store", mask_images=options)


def test_masks_beside_their_images_are_told_by_their_ending(tmp_path):
    labels = np.ones(SIZE_HW, dtype=np.uint8)
    write_images(tmp_path / "all", ["a.png", "b.png"], size_hw=SIZE_HW)
    for name in ("a", "b"):
        Image.fromarray(labels).save(tmp_path / "all" / f"{name}_mask.png")
    store = read(
        tmp_path / "all",
        tmp_path / "a.store",
        images_directory=tmp_path / "all",
        mask_images={"layout": "label_maps", "classes": {1: "hat"}, "mask_suffix": "_mask.png"}
        | {"image_suffix": ".png"},
    )
    assert [image.file_name for image in store.images] == ["a.png", "b.png"]
    assert any(
        "left out 2 that do not end in _mask.png ('a.png', 'b.png')" in n for n in store.notes
    )


def test_an_image_turned_by_exif_takes_masks_of_either_way(tmp_path):
    labels = np.zeros((20, 30), dtype=np.uint8)
    labels[:3, :7] = 1
    (tmp_path / "maps").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "a.jpg", exif=exif)
    options = {"layout": "label_maps", "classes": {1: "hat"}}
    for drawn, choice, wanted in (
        (labels, "as_stored", np.rot90(labels, -1)),
        (np.ascontiguousarray(labels.T), "as_displayed", labels.T),
    ):
        Image.fromarray(drawn).save(tmp_path / "maps" / "a.png")
        store = read(
            tmp_path / "maps",
            tmp_path / "a.store",
            images_directory=tmp_path / "images",
            mask_images=options,
            exif=choice,
        )
        assert store.images[0].size_hw == (30, 20)
        assert_array_equal(instances_of(store)[0][2], wanted == 1)


def test_label_descriptions_name_the_categories(tmp_path, dsb):
    labels = LabelDescriptions((Category(1, "cell", ""), Category(2, "other", "")))
    write_label_descriptions(labels, tmp_path / "labels.json")
    store = read(dsb, tmp_path / "a.store", label_descriptions=tmp_path / "labels.json")
    assert store.labels == labels
    with pytest.raises(InputError, match=r"a key of mask_images\.classes must be 1 to 2, .* got 3"):
        read(
            dsb,
            tmp_path / "b.store",
            label_descriptions=tmp_path / "labels.json",
            mask_images={"classes": {3: "cell"}},
        )


def test_a_cache_is_made_anew_when_a_file_or_a_setting_changes(tmp_path, dsb):
    built = []

    def opened(**values) -> AnnotationStore:
        return open_or_build(
            dsb,
            tmp_path / "cache",
            ReadingOptions(mask_images=settings(**values)),
            on_built=built.append,
        )

    assert opened().num_instances == 5
    opened()
    assert len(built) == 1
    path = dsb / "c3" / "masks" / "0.png"  # in a folder two below the one that is given
    Image.fromarray(blocks(SIZE_HW, (0, 0, 2, 2))[0]).save(path)
    assert opened().num_instances == 6
    assert len(built) == 2
    content = path.read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    opened()
    assert len(built) == 3
    assert opened(classes={5: "x"}).category_ids == (5,)
    assert len(built) == 4
    opened()
    assert len(built) == 4  # each setting has a store of its own


def test_progress_counts_the_bytes_of_the_masks(tmp_path, dsb):
    calls = []
    build_store(dsb, tmp_path / "a.store", on_progress=lambda *numbers: calls.append(numbers))
    total = sum(path.stat().st_size for path in dsb.glob("*/masks/*.png"))
    assert calls[-1] == (total, total)


def test_blocks_hold_some_images_only(tmp_path):
    """A conversion of many images writes many record batches, so memory does not grow."""
    masks = {f"{number:03d}": blocks((4, 4), (0, 0, 2, 2), (2, 2, 4, 4)) for number in range(100)}
    folder = write_instance_files(tmp_path / "dsb", masks, size_hw=(4, 4))
    store = read(folder, tmp_path / "a.store")
    assert len(store.description["runs_batch_starts"]) > 1
    assert json.loads((tmp_path / "a.store" / "store.json").read_text())["source_kind"] == (
        "mask_images"
    )
    assert store.num_instances == 200
