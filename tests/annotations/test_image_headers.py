"""Sizes and pixels of images of every kind."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from src.annotations.image_files import read_header, read_image_rgb, read_size_hw
from src.errors import InputError


def make_image(mode: str = "RGB", size_wh: tuple[int, int] = (40, 24)) -> Image.Image:
    """A gradient, so that no rotation looks like another."""
    width, height = size_wh
    red = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    green = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    pixels = np.stack([red, green, (red + green) / 2], axis=2).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
def test_exif_rotation_is_applied(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    make_image().save(path, exif=with_orientation(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    header = read_header(path)
    assert (header.stored_hw, header.orientation) == ((24, 40), orientation)
    assert read_size_hw(path) == expected.shape[:2]
    assert read_size_hw(path) == ((24, 40) if orientation < 5 else (40, 24))
    assert_array_equal(read_image_rgb(path), expected)


def test_grayscale_is_repeated(tmp_path):
    make_image("L").save(tmp_path / "gray.jpg")
    pixels = read_image_rgb(tmp_path / "gray.jpg")
    assert pixels.shape == (24, 40, 3)
    assert pixels.dtype == np.uint8
    assert_array_equal(pixels[..., 0], np.asarray(Image.open(tmp_path / "gray.jpg")))
    assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_sixteen_bit_keeps_its_high_byte(tmp_path):
    values = np.array([[0, 255, 256], [1000, 40000, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert_array_equal(read_image_rgb(tmp_path / "deep.png")[..., 1], values >> 8)


@pytest.mark.parametrize(("mode", "suffix"), [("P", "png"), ("RGBA", "png"), ("CMYK", "jpg")])
def test_other_colour_modes_are_converted(tmp_path, mode, suffix):
    path = tmp_path / f"a.{suffix}"
    make_image(mode).save(path)
    assert_array_equal(read_image_rgb(path), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("read", [read_size_hw, read_image_rgb])
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_truncated_images_are_refused(tmp_path, read, suffix):
    whole = io.BytesIO()
    make_image(size_wh=(300, 200)).save(whole, format={"jpg": "jpeg"}.get(suffix, suffix))
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) * 2 // 3])
    with pytest.raises(InputError, match=rf"cut\.{suffix}: .*(truncated|cut off)"):
        read(path)


@pytest.mark.parametrize("read", [read_size_hw, read_image_rgb])
def test_missing_and_foreign_files_are_refused(tmp_path, read):
    with pytest.raises(InputError, match=r"gone\.jpg: the image file is missing"):
        read(tmp_path / "gone.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(InputError, match=r"text\.jpg: not an image"):
        read(tmp_path / "text.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InputError, match=r"empty\.jpg: not an image"):
        read(tmp_path / "empty.jpg")
    with pytest.raises(InputError, match=r"not an image|missing"):
        read(tmp_path)


def test_trailer_behind_an_image_is_no_fault(tmp_path):
    path = tmp_path / "trailer.jpg"
    make_image().save(path)
    path.write_bytes(path.read_bytes() + b"\0" * 10_000)
    assert read_size_hw(path) == (24, 40)


def test_thumbnail_does_not_hide_a_truncation(tmp_path):
    thumbnail = io.BytesIO()
    make_image(size_wh=(8, 8)).save(thumbnail, "jpeg")
    exif = Image.Exif()
    exif[0x010E] = thumbnail.getvalue()
    path = tmp_path / "cut.jpg"
    make_image(size_wh=(600, 400)).save(path, exif=exif, quality=95)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match="truncated"):
        read_size_hw(path)


def test_pixels_are_the_same_however_pillow_keeps_them(tmp_path):
    """Above 16 MB, four bytes a pixel, Pillow keeps the rows in several blocks."""
    random = np.random.default_rng(0)
    for size_hw in ((64, 48), (2100, 2100)):
        image = random.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "a.png", compress_level=0)
        found = read_image_rgb(tmp_path / "a.png")
        assert_array_equal(found, image)
        assert found.flags.c_contiguous
        assert found.flags.writeable


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(tmp_path, value):
    make_image().save(tmp_path / "a.jpg", exif=with_orientation(value))
    assert read_header(tmp_path / "a.jpg").orientation == 1
    assert read_image_rgb(tmp_path / "a.jpg").shape[:2] == read_size_hw(tmp_path / "a.jpg")
