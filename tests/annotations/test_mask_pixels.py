"""Values of mask images as files store them: PNG of every depth, colours, MAT-files."""

from __future__ import annotations

import re
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_array_equal
from PIL import Image

from src.annotations.mask_pixels import read_mask_values
from src.annotations.rows import RowError
from src.errors import InputError

VALUES = np.random.default_rng(0).integers(0, 2**16, (7, 5))
GREY, PALETTE = 0, 3


def write_png(path: Path, rows: list[list[int]], *, bits: int, colour: int) -> None:
    """Write a PNG of any bit depth, which Pillow cannot."""
    lines = b""
    for row in rows:
        text = "".join(format(value, f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        lines += b"\0" + bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    depth = min(bits, 16)  # of a channel: three of 16 bits are 48 a pixel
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), depth, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(255, 255 - 3 * 2**bits, -1))) if colour == PALETTE else b""
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + palette
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("bits", "colour"), [*((bits, GREY) for bits in (1, 2, 4, 8, 16)), (1, 3), (2, 3), (4, 3)]
)
def test_a_png_of_any_depth_gives_what_it_stores(tmp_path, bits, colour):
    wanted = VALUES % 2**bits
    write_png(tmp_path / "a.png", wanted.tolist(), bits=bits, colour=colour)
    assert_array_equal(read_mask_values(tmp_path / "a.png"), wanted)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_equal_channels_are_one_and_alpha_is_left_out(tmp_path, mode):
    wanted = (VALUES % 2).astype(np.uint8)
    path = tmp_path / "a.png"
    if mode == "P":
        Image.frombytes("P", (5, 7), wanted.tobytes()).save(path)
    else:
        image = Image.fromarray(wanted * 255).convert(mode)
        if mode in ("LA", "RGBA"):
            image.putalpha(77)
        image.save(path)
    assert_array_equal(read_mask_values(path) != 0, wanted != 0)


def test_colours_are_named_with_their_place(tmp_path):
    rgb = np.zeros((4, 6, 3), dtype=np.uint8)
    rgb[2, 5] = (9, 9, 8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    message = r"red, green and blue must be equal in each pixel, got \(9, 9, 8\) in row 2, column 5"
    with pytest.raises(RowError, match=message):
        read_mask_values(tmp_path / "a.png")
    write_png(tmp_path / "b.png", [[0, 0, 0]], bits=48, colour=2)
    with pytest.raises(RowError, match="got colours of 16 bits"):
        read_mask_values(tmp_path / "b.png")
    Image.new("CMYK", (3, 3)).save(tmp_path / "c.tif")
    with pytest.raises(RowError, match=r"must be grey or palette indices, got colours \(CMYK\)"):
        read_mask_values(tmp_path / "c.tif")


def test_a_stack_of_pages_is_refused(tmp_path):
    pages = [Image.new("L", (4, 3), number) for number in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(RowError, match="must hold one image, got 3 pages or frames"):
        read_mask_values(tmp_path / "a.tif")


def test_numbers_with_a_fraction_are_named(tmp_path):
    values = np.zeros((3, 4), dtype=np.float32)
    Image.fromarray(values + 7).save(tmp_path / "whole.tif")
    assert read_mask_values(tmp_path / "whole.tif").tolist() == [[7] * 4] * 3
    for bad in (0.5, np.nan, np.inf, 3e9):
        values[1, 2] = bad
        Image.fromarray(values).save(tmp_path / "a.tif")
        with pytest.raises(RowError, match=r"values must be whole numbers, got .* in row 1, colum"):
            read_mask_values(tmp_path / "a.tif")


def test_encapsulated_postscript_is_not_run(tmp_path, monkeypatch):
    """Pillow draws it with Ghostscript, whatever the name of the file says."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_a, **_k: pytest.fail("was run"))
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(InputError, match=r"a\.png: not an image of pixels, got EPS"):
        read_mask_values(tmp_path / "a.png")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "i8", "f4", "f8", "?"])
def test_a_mat_file_gives_its_matrix(tmp_path, kind, compressed):
    wanted = (VALUES % 100).astype(kind)
    path = tmp_path / "a.MAT"
    content = {"groundtruth": wanted, "note": "text", "parts": {"a": 1}}
    scipy.io.savemat(path, content, do_compression=compressed)
    for name in (None, "groundtruth"):
        found = read_mask_values(path, mat_variable=name)
        assert found.dtype.kind in "iu"
        assert_array_equal(found, wanted)


@pytest.mark.parametrize("order", ["<", ">"])
def test_whole_doubles_are_stored_as_bytes_by_matlab_in_either_byte_order(tmp_path, order):
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)

    wanted = VALUES % 200
    matrix = (
        element(6, struct.pack(f"{order}II", 6, 0))  # of class double
        + element(5, struct.pack(f"{order}ii", 7, 5))
        + struct.pack(f"{order}I", 2 << 16 | 1)
        + b"gt\0\0"  # a short name lies in its tag
        + element(2, wanted.astype(np.uint8).tobytes(order="F"))  # numbers of type uint8
    )
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}HH", 0x0100, 0x4D49)
    (tmp_path / "a.mat").write_bytes(head + element(14, matrix))
    assert_array_equal(read_mask_values(tmp_path / "a.mat", mat_variable="gt"), wanted)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (
            {"a": np.eye(2), "b": np.eye(3)},
            None,
            "must hold one matrix of real numbers, got a (2x2 double), b (3x3 double); "
            "mask_images.mat_variable=NAME chooses",
        ),
        ({"a": np.eye(2)}, "b", "must hold the matrix 'b', got a (2x2 double)"),
        ({"a": {"x": 1}}, None, "got a (1x1 structure)"),
        ({"a": np.array([[1, "x"]], dtype=object)}, "a", "got a (1x2 cell array)"),
        ({"a": np.eye(2) * 1j}, None, "got a (2x2 complex double)"),
        ({"a": np.zeros((2, 3, 4))}, None, "got a (2x3x4 double)"),
        ({"a": np.zeros((0, 0))}, None, "got a (0x0 double)"),
        ({}, None, "got no variable"),
    ],
)
def test_what_is_no_matrix_is_named(tmp_path, content, name, message):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_mask_values(path, mat_variable=name)
    assert str(caught.value).startswith(f"{path}: must hold ")


def test_other_levels_are_named(tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(600))
    with pytest.raises(
        InputError, match=r"a MAT-file as save -v6 and -v7 write it, got level 7\.3"
    ):
        read_mask_values(path)
    scipy.io.savemat(path, {"a": np.eye(2)}, format="4")
    with pytest.raises(
        InputError, match="a MAT-file as save -v6 and -v7 write it, got other bytes"
    ):
        read_mask_values(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_mat_file_cut_off_or_flipped_anywhere_is_read_or_refused(tmp_path, compressed):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"a": np.arange(12.0).reshape(4, 3)}, do_compression=compressed)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_mask_values(path)
    rng = np.random.default_rng(0)
    for at in range(124, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with suppress(InputError, RowError):  # anything else is a bug
            read_mask_values(path)


def test_a_bomb_is_refused_by_its_own_header(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"a": np.zeros((4, 5), dtype=np.uint8)}, do_compression=True)
    data = path.read_bytes()
    body = bytearray(zlib.decompress(data[136:]))
    at = body.index(struct.pack("<ii", 4, 5))
    body[at : at + 8] = struct.pack("<ii", 40_000, 50_000)
    packed = zlib.compress(bytes(body))
    path.write_bytes(data[:128] + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(InputError, match=r"max_image_megapixels must be 2000 or more"):
        read_mask_values(path)
