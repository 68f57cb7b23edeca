"""Names of images: their one spelling, what leads out of the folder, where a file lies."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from src.annotations.formats import ReadingOptions
from src.annotations.image_names import find_image, image_path, is_image_name, match_ids, short_id
from src.annotations.rows import RowError
from src.annotations.store import AnnotationStore
from src.annotations.store_builder import build_store
from src.errors import InputError
from tests.helpers.annotation_files import HEADER_2019, HEADER_2020, read_rows, write_lines

SQUARE = [10, 5, 30, 5, 30, 25, 10, 25]


def write_coco(path, images, annotated=None):
    """Images of 40 x 60 px from (id, keys), an annotation for each image id in ``annotated``."""
    entries = [{"id": number, "height": 40, "width": 60} | keys for number, keys in images]
    annotated = [number for number, _ in images] if annotated is None else annotated
    annotations = [
        {"id": at, "image_id": number, "category_id": 1, "segmentation": [[x + at for x in SQUARE]]}
        for at, number in enumerate(annotated, start=1)
    ]
    categories = [{"id": 1, "name": "c1"}]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path


def build(source, **options):
    report = build_store(source, source.with_suffix(".store"), ReadingOptions(**options))
    store = AnnotationStore(source.with_suffix(".store"))
    found = {image.image_id: len(store.instances(at)) for at, image in enumerate(store.images)}
    return found, store, report


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a.jpg", "a.jpg"),
        ("x/a.jpg", "x/a.jpg"),
        ("./x/a.jpg", "x/a.jpg"),
        (".\\x\\y\\a.jpg", "x/y/a.jpg"),
        ("x//./a.jpg", "x/a.jpg"),
        ("x/../a.jpg", "a.jpg"),
        (" a.jpg \t", "a.jpg"),
        ("a.jpg\xa0", "a.jpg"),
        ("a\xa0b\u202fc\u3000d.jpg", "a\xa0b\u202fc\u3000d.jpg"),
        ("снимок № 1.jpg", "снимок № 1.jpg"),
        ("family\u200d.jpg", "family\u200d.jpg"),
        ("...jpg", "...jpg"),
        ("C:a.jpg", "C:a.jpg"),
    ],
)
def test_a_path_has_one_spelling(text, path):
    assert image_path(text, key="file_name") == path


@pytest.mark.parametrize(
    ("image_id", "short"),
    [
        ("abc.png", "abc"),
        ("x/abc.JPG", "x/abc"),
        ("abc/images/abc.png", "abc"),
        ("abc/images/other.png", "abc/images/other"),
        ("x/abc/images/abc.png", "x/abc/images/abc"),
        ("abc.v2", "abc.v2"),
    ],
)
def test_short_ids(image_id, short):
    assert short_id(image_id) == short


def test_ids_match_in_any_spelling_but_not_two_images():
    known = ["a.png", "b/images/b.png", "c.jpg", "c.png", "d.png", "d.tif", "e"]
    wanted = ["a", "b", "c", "d", "e.jpg", "a.png", "b/images/b", "f"]
    found = ["a.png", "b/images/b.png", "c.jpg", "d", "e", "a.png", "b/images/b", "f"]
    assert match_ids(wanted, known) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/etc/passwd", r"file_name must be a path relative to the image folder .* '/etc/passwd'"),
        ("../a.jpg", "and inside it, got '../a.jpg'"),
        ("x/../../a.jpg", "and inside it"),
        ("\\\\server\\a.jpg", "and inside it"),
        ("c:\\a.jpg", "and inside it"),
        ("https://x.org/a.jpg", "and inside it, got 'https://x.org/a.jpg'"),
        ("", "file_name must name an image, got ''"),
        ("x/..", "file_name must name an image"),
        ("x/", "file_name must name an image"),
        ("a\nb.jpg", r"file_name must be free of control characters, got '\\n'"),
        ("a\x1b[31m.jpg", "free of control characters"),
        ("a\u2028.jpg", "free of control characters"),
        ("gpj.\u202ea.jpg", "free of control characters"),
        ("a\udc80.jpg", "free of control characters"),
    ],
)
def test_a_path_that_leaves_or_misleads_is_refused(text, message):
    with pytest.raises(RowError, match=message):
        image_path(text, key="file_name")


def test_suffixes_of_images():
    assert all(map(is_image_name, ("a.JPG", "a.webp", "a.bmp", "a.tif", "a.TIFF", "a.gif")))
    assert not any(map(is_image_name, ("a.txt", "jpg", "a.jpg.txt", "a")))


def test_a_file_is_found_in_a_sub_folder_and_from_the_export_root(tmp_path):
    (tmp_path / "export" / "images" / "x").mkdir(parents=True)
    for name in ("a.jpg", "x/a.jpg"):
        (tmp_path / "export" / "images" / name).touch()
    root, images = tmp_path / "export", tmp_path / "export" / "images"
    assert find_image(root, "images/a.jpg") == images / "a.jpg"
    assert find_image(images, ".\\x\\a.jpg") == images / "x" / "a.jpg"
    assert find_image(images, "images/x/a.jpg") == images / "x" / "a.jpg"
    assert find_image(images, "export/images/a.jpg") == images / "a.jpg"
    assert find_image(images, "other/a.jpg") == images / "other" / "a.jpg"  # is missing


def test_a_link_that_leaves_the_folder_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.jpg").touch()
    (tmp_path / "images" / "own.jpg").touch()
    (tmp_path / "images" / "inner.jpg").symlink_to("own.jpg")
    (tmp_path / "images" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "images" / "up").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    assert find_image(tmp_path / "linked", "inner.jpg").exists()
    for name in ("link.jpg", "up/secret.jpg"):
        with pytest.raises(InputError, match=rf"file_name must lead to .*{name}', which leaves it"):
            find_image(tmp_path / "linked", name)
    with pytest.raises(InputError, match=r"images: ImageId must be a path relative"):
        find_image(tmp_path / "images", "../secret.jpg", key="ImageId")


def test_sub_folders_keep_images_apart_in_every_format(tmp_path):
    coco = write_coco(
        tmp_path / "in.json", [(1, {"file_name": "x/a.jpg"}), (2, {"file_name": ".\\y\\a.jpg"})]
    )
    assert build(coco)[0] == {"x/a.jpg": 1, "y/a.jpg": 1}
    for header, tail, ids in ((HEADER_2019, "6", ".jpg"), (HEADER_2020, "6,", "")):
        source = write_lines(
            tmp_path / "in.csv", header, f"x/a{ids},1 2,5,4,{tail}", f"y\\a{ids},1 2,5,4,{tail}"
        )
        found, store, _ = build(source)
        assert found == {f"x/a{ids}": 1, f"y/a{ids}": 1}
        assert [image.file_name for image in store.images] == ["x/a.jpg", "y/a.jpg"]


def test_sub_folders_are_read_where_images_are_given(tmp_path):
    for name in ("x/a.jpg", "y/a.jpg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "images" / name)
    (tmp_path / "images" / "z").symlink_to(tmp_path)
    source = write_coco(
        tmp_path / "in.json",
        [(n, {"file_name": name}) for n, name in enumerate(("x/a.jpg", "y/a.jpg", "z/s.jpg"), 1)],
    )
    with pytest.raises(InputError, match=r"images\[2\], image 'z/s.jpg': file_name must lead to"):
        build(source, images_directory=tmp_path / "images")
    found, _, report = build(source, images_directory=tmp_path / "images", on_bad_rows="skip")
    assert found == {"x/a.jpg": 1, "y/a.jpg": 1}
    assert report.skipped_rows == 2


def test_lvis_names_images_by_coco_url(tmp_path):
    url = "http://images.cocodataset.org/train2017/000000391895.jpg"
    assert build(write_coco(tmp_path / "in.json", [(1, {"coco_url": url})]))[0] == {
        "train2017/000000391895.jpg": 1
    }
    bad = write_coco(tmp_path / "in.json", [(1, {"coco_url": "http://x/../a.jpg"})])
    with pytest.raises(InputError, match=r"images\[0\].*: coco_url must be a path relative"):
        build(bad)


def test_white_space_and_suffix_make_no_second_image(tmp_path):
    source = write_lines(
        tmp_path / "in.csv",
        HEADER_2019,
        "abc.jpg,1 2,5,4,6",
        "abc,3 2,5,4,6",
        "abc.jpg ,5 2,5,4,6",
        "./abc.jpg,7 2,5,4,6",
        "d,1 2,5,4,6",
    )
    found, _, report = build(source)
    assert found == {"abc.jpg": 4, "d": 1}
    assert report.notes == (
        "image names with white space around them, which is dropped: 1 (the first: 'abc.jpg ')",
        "images spelled in more than one way, each taken as one: 1 "
        "(the first: 'abc.jpg' and 'abc')",
    )


def test_one_file_under_two_image_ids_is_one_image(tmp_path):
    names = ("a.jpg", "a.jpg ", "b.jpg")
    images = [(number, {"file_name": name}) for number, name in enumerate(names, 1)]
    found, store, _ = build(write_coco(tmp_path / "in.json", images))
    assert found == {"a.jpg": 2, "b.jpg": 1}
    assert any("'a.jpg' and 'a.jpg '" in note for note in store.notes)


def test_one_file_of_two_sizes_keeps_the_size_that_most_rows_have(tmp_path):
    images = [(1, {"file_name": "a.jpg"}), (2, {"file_name": "a.jpg", "height": 41})]
    source = write_coco(tmp_path / "in.json", images, annotated=[1, 1, 2])
    with pytest.raises(
        InputError, match=r"images\[1\], image 'a.jpg': Height and Width must be 40 and .*got 41"
    ):
        build(source)
    found, _, report = build(source, on_bad_rows="skip")
    assert found == {"a.jpg": 2}
    places = [row["place"] for row in read_rows(report.skipped_file)]
    assert sorted(places) == ["annotations[2]", "images[1]"]


def test_an_ambiguous_image_id_costs_all_its_annotations(tmp_path):
    images = [
        (1, {"file_name": "a0.jpg"}),
        (2, {"file_name": "b.jpg"}),
        (1, {"file_name": "a1.jpg"}),
    ]
    source = write_coco(tmp_path / "in.json", images, annotated=[1, 1, 2, True])
    said = r"id 1 must be that of one image, got it for 'a0.jpg' .* and 'a1.jpg'"
    with pytest.raises(InputError, match=r"images\[0\], image 'a0.jpg': " + said):
        build(source)
    found, _, report = build(source, on_bad_rows="skip")
    assert found == {"b.jpg": 1}
    rows = read_rows(report.skipped_file)
    assert sorted(row["place"] for row in rows) == [
        "annotations[0]",
        "annotations[1]",
        "annotations[3]",
        "images[0]",
        "images[2]",
    ]


def test_an_image_that_is_listed_twice_alike_is_not_ambiguous(tmp_path):
    images = [(1, {"file_name": "a.jpg"}), (1, {"file_name": "./a.jpg"})]
    found, store, _ = build(write_coco(tmp_path / "in.json", images, annotated=[1, 1]))
    assert found == {"a.jpg": 2}
    assert "images listed again with the same id, name and size: 1" in store.notes
