"""Read one numeric array of a MAT-file (level 5), and nothing else of it.

Source: MathWorks, "MAT-File Format" (R2023b), chapter "Level 5 MAT-Files". Cells, structures,
objects and functions are named in a message and never read. A compressed variable is expanded as
far as its own header says, which is checked against ``max_image_megapixels`` before.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.annotations.image_files import check_num_pixels
from src.errors import InputError
from src.io import check_input_file, printable

_HEADER_BYTES = 128
_BYTE_ORDERS = {b"IM": "<", b"MI": ">"}  # a number, as each order writes it
_MATRIX, _COMPRESSED = 14, 15
_UINT32, _INT32, _INT8 = 6, 5, 1
_NUMBERS = {  # types of stored numbers
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
_CLASSES = {  # of arrays
    **{1: "cell array", 2: "structure", 3: "object", 4: "text", 5: "sparse matrix"},
    **{6: "double", 7: "single", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16"},
    **{12: "int32", 13: "uint32", 14: "int64", 15: "uint64", 16: "function", 17: "opaque object"},
}
_FIRST_NUMERIC, _LAST_NUMERIC = 6, 15
_COMPLEX_FLAG = 0x0800
_START_BYTES = 4096  # hold flags, dimensions and name of every variable that is taken


class _DamagedError(ValueError):
    """Says what is wrong with the bytes."""


@dataclass(frozen=True, slots=True)
class _Variable:
    """A variable as its header describes it, and where its bytes lie in the file."""

    name: str
    kind: str
    is_numeric: bool
    shape: tuple[int, ...]
    values_at: int  # where the numbers stand in the expanded bytes
    byte_order: str
    place: slice
    is_compressed: bool


def read_mat_array(path: Path, variable: str | None = None) -> npt.NDArray[np.generic]:
    """Read a matrix of real numbers from a MAT-file as ``save -v6`` and ``save -v7`` write it.

    Args:
        path: The file.
        variable: Its name; None: the only matrix of real numbers in the file.

    Returns:
        (H, W), of a number type.

    Raises:
        InputError: Not such a file, damaged, or it has no such matrix, or several; names them.
    """
    check_input_file(path)
    try:
        with path.open("rb") as file:
            order = _byte_order(file.read(_HEADER_BYTES), path)
            with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                chosen = _choose(list(_variables(data, order)), variable, path)
                height, width = chosen.shape
                check_num_pixels(path, (width, height))
                return _values(chosen, data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (_DamagedError, struct.error, zlib.error) as error:
        raise InputError(f"{path}: a damaged or truncated MAT-file ({error})") from error


def _choose(found: list[_Variable], name: str | None, path: Path) -> _Variable:
    matrices = [one for one in found if one.is_numeric and len(one.shape) == 2]
    wanted = [one for one in matrices if name in (None, one.name)]
    if len(wanted) == 1:
        return wanted[0]
    has = ", ".join(
        f"{printable(one.name, limit=60)} ({'x'.join(map(str, one.shape))} {one.kind})"
        for one in found
    )
    what = f"the matrix {name!r:.60}" if name else "one matrix of real numbers"
    raise InputError(
        f"{path}: must hold {what}, got {printable(has, limit=300) or 'no variable'}"
        + ("; mask_images.mat_variable=NAME chooses" if not name and len(wanted) > 1 else "")
    )


def _byte_order(header: bytes, path: Path) -> str:
    """Return the byte order that the header of a file names."""
    if header[:10] != b"MATLAB 7.3" and header[126:] in _BYTE_ORDERS:
        return _BYTE_ORDERS[header[126:]]
    got = "level 7.3" if header.startswith((b"MATLAB 7.3", b"\x89HDF")) else "other bytes"
    raise InputError(f"{path}: must be a MAT-file as save -v6 and -v7 write it, got {got}")


def _variables(data: mmap, order: str) -> Iterator[_Variable]:
    """Yield the variables of a file by their headers."""
    at = _HEADER_BYTES
    while at + 8 <= len(data):
        kind, num_bytes = struct.unpack_from(f"{order}II", data, at)
        at += 8
        if num_bytes > len(data) - at:
            raise _DamagedError(f"an element of {num_bytes} bytes, got {len(data) - at}")
        place = slice(at, at + num_bytes)
        start = data[at : min(place.stop, at + 2 * _START_BYTES)]
        at += num_bytes
        if kind == _COMPRESSED:
            start = zlib.decompressobj().decompress(start, 8 + _START_BYTES)
            if struct.unpack_from(f"{order}I", start)[0] == _MATRIX:
                yield _describe(start, 8, order, place, is_compressed=True)
        elif kind == _MATRIX:
            yield _describe(start, 0, order, place, is_compressed=False)


def _describe(start: bytes, at: int, order: str, place: slice, *, is_compressed: bool) -> _Variable:
    flags, at = _element(start, at, order, _UINT32)
    dimensions, at = _element(start, at, order, _INT32)
    name, at = _element(start, at, order, _INT8)
    word = struct.unpack_from(f"{order}I", flags)[0]
    array_class = word & 0xFF
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    is_complex = bool(word & _COMPLEX_FLAG)
    kind = _CLASSES.get(array_class, f"array of class {array_class}")
    return _Variable(
        name=name.decode("latin-1"),
        kind=f"complex {kind}" if is_complex else kind,
        is_numeric=_FIRST_NUMERIC <= array_class <= _LAST_NUMERIC
        and not is_complex
        and min(shape, default=0) > 0,
        shape=shape,
        values_at=at,
        byte_order=order,
        place=place,
        is_compressed=is_compressed,
    )


def _tag(data: bytes, at: int, order: str) -> tuple[int, int, int]:
    """Return type, size in bytes and place of an element's data; small ones lie in their tag."""
    (word,) = struct.unpack_from(f"{order}I", data, at)
    if word >> 16:
        return word & 0xFFFF, word >> 16, at + 4
    return word, struct.unpack_from(f"{order}I", data, at + 4)[0], at + 8


def _element(data: bytes, at: int, order: str, wanted: int) -> tuple[bytes, int]:
    """Return the data of an element of the wanted type, and where the next one begins."""
    kind, num_bytes, begin = _tag(data, at, order)
    if kind != wanted or begin + num_bytes > len(data):
        raise _DamagedError("a variable's header is not as the format has it")
    is_small = begin == at + 4
    end = at + 8 if is_small else begin + math.ceil(num_bytes / 8) * 8
    return data[begin : begin + num_bytes], end


def _first_bytes(variable: _Variable, file: mmap, most: int) -> bytes:
    """Return the bytes of a variable as they are stored, at most so many."""
    return file[variable.place.start : min(variable.place.stop, variable.place.start + most)]


def _values(variable: _Variable, file: mmap) -> npt.NDArray[np.generic]:
    count = math.prod(variable.shape)
    # eight bytes are the widest number, sixteen the tag with its padding
    most = variable.values_at + 16 + 8 * count
    if variable.is_compressed:  # what does not compress is longer by a thousandth at most
        packed = _first_bytes(variable, file, most + most // 1000 + 1024)
        data = zlib.decompressobj().decompress(packed, most)
    else:
        data = _first_bytes(variable, file, most)
    kind, num_bytes, begin = _tag(data, variable.values_at, variable.byte_order)
    if kind not in _NUMBERS:
        raise _DamagedError(f"numbers of type {kind}")
    dtype = np.dtype(variable.byte_order + _NUMBERS[kind])
    if num_bytes != count * dtype.itemsize or begin + num_bytes > len(data):
        raise _DamagedError(
            f"{'x'.join(map(str, variable.shape))} numbers of {dtype.itemsize} bytes, got "
            f"{min(num_bytes, len(data) - begin)} bytes"
        )
    flat = np.frombuffer(data, dtype=dtype, count=count, offset=begin)
    return flat.reshape(variable.shape, order="F").astype(dtype.newbyteorder("="), copy=False)
