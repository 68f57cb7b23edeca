"""Ids that a CSV names, and the images of a folder with what is left out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from src.annotations.image_names import list_images, read_image_ids
from src.errors import InputError


def test_ids_are_unique_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "sample_submission.csv"
    path.write_text("ImageId,EncodedPixels,ClassId\nb.jpg,1 1,23\na.jpg,1 1,23\nb.jpg,1 1,23\n")
    assert read_image_ids(path) == ("b.jpg", "a.jpg")


def test_a_byte_order_mark_long_fields_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    lines = ["\ufeffImageId,EncodedPixels", f'b.jpg,"{"1 1 " * 50_000}"', "c.jpg,1 1"]
    path.write_bytes("\r\n".join(lines).encode())
    assert read_image_ids(path) == ("b.jpg", "c.jpg")


def test_spellings_of_an_image_are_one_image(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    path.write_text('EncodedPixels,ImageId\n1 1,"a, b"\n1 1,"a, b.jpg "\n1 1,./x/c\n1 1,x\\c.jpg\n')
    assert read_image_ids(path) == ("a, b", "x/c")


def test_spaces_that_are_no_plain_spaces_are_part_of_a_name(tmp_path: Path) -> None:
    names = ("a\xa0b.jpg", "a\u202fb.jpg", "a\u3000b.jpg")
    path = tmp_path / "sample.csv"
    path.write_text("\n".join(("ImageId", *names)), encoding="utf-8")
    for name in names:
        (tmp_path / name).touch()
    assert read_image_ids(path) == names
    assert sorted(list_images(tmp_path).names) == sorted(names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"columns must have ImageId, got an empty file \(.*sample\.csv\)"),
        (b"Image,ClassId\na,1\n", r"columns must have ImageId, got Image, ClassId \(.*, row 1\)"),
        (b"ImageId,ClassId\n", r"must have one row or more, got only a header \(.*sample\.csv"),
        (b"ImageId\n\xff\xfe\n", r"the row must be UTF-8 text, got .* \(.*sample\.csv, row 2\)"),
        (b"ClassId,ImageId\n1\n", r"ImageId must be given, got a row of 1 values \(.*, row 2\)"),
        (b"ImageId\na.jpg\n/a.jpg\n", r"ImageId must be a path relative .*sample\.csv, row 3\)"),
        (None, r"sample\.csv: no such file"),
    ],
)
def test_bad_list(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "sample.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_image_ids(path)


def test_a_list_is_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: must be a regular file, got a pipe"):
        read_image_ids(tmp_path / "pipe")


def test_what_is_left_out_of_a_folder_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "x" / "y").mkdir(parents=True)
    (folder / ".thumbs").mkdir()
    (tmp_path / "secret.png").touch()
    kept = ("b.JPG", "a.webp", "c.gif", "x/a.tiff", "x/y/a.bmp", "own.png")
    for name in (*kept, "notes.txt", "Thumbs.db", "x/n.csv", "a.raw", "._a.jpg", " a.jpg"):
        (folder / name).touch()
    (folder / "again.png").symlink_to("own.png")
    (folder / "secret.png").symlink_to(tmp_path / "secret.png")
    (folder / "z").symlink_to("x")
    os.mkfifo(folder / "pipe.jpg")
    found = list_images(folder)
    assert list(found.names) == sorted((*kept, "again.png"))
    line = found.describe_left_out()
    assert line is not None
    assert line.startswith(f"{folder}: left out ")
    for part in (
        "2 hidden ('._a.jpg', '.thumbs')",
        "1 symbolic links that leave the folder ('secret.png')",
        "1 symbolic links to folders ('z')",
        "1 that are no regular files ('pipe.jpg')",
        "1 whose names no file of annotations could spell (' a.jpg')",
        "4 without an image suffix (.jpg .jpeg .png .webp .bmp .tif .tiff .gif) "
        "('Thumbs.db', 'a.raw', 'notes.txt', ...)",
    ):
        assert part in line


def test_a_name_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb"):  # noqa: PTH123  no text
        pass
    assert not list_images(tmp_path).names
    assert list_images(tmp_path).describe_left_out() == (
        f"{tmp_path}: left out 1 whose names no file of annotations could spell ('caf\\udce9.jpg')"
    )
