"""Checksum of a file of weights, kept in its header.

A safetensors file is eight bytes of length, a JSON header and the numbers. The header's
``__metadata__`` holds texts by name, which other programs ignore: here the SHA-256 of the rest of
the header and of the numbers, and a second key that announces it, so that a flipped bit in the
first key's name is noticed, too. Keys are sorted: the same weights are the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.errors import InputError

METADATA_KEY = "__metadata__"
DIGEST_KEY, MARK_KEY = "weights_sha256", "weights_checksum"
LENGTH_BYTES = 8
_ALIGNMENT = 8
_CHUNK_BYTES = 1 << 22


def sealed_header(content: memoryview) -> tuple[bytes, memoryview]:
    """Return a safetensors file's length and header with a checksum, and its numbers.

    Args:
        content: The file as the library writes it.
    """
    end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    header: dict[str, Any] = json.loads(bytes(content[LENGTH_BYTES:end]))
    numbers = content[end:]
    metadata = header.setdefault(METADATA_KEY, {})
    metadata[MARK_KEY] = DIGEST_KEY
    digest = hashlib.sha256(_canonical(header))
    digest.update(numbers)
    metadata[DIGEST_KEY] = digest.hexdigest()
    text = _canonical(header)
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text, numbers


def check_weights_seal(path: Path) -> None:
    """Compare a file's checksum; a file of another program, without one, passes.

    Args:
        path: A safetensors file whose header has a sane length.

    Raises:
        InputError: The file is not as it was written.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        try:
            header = json.loads(file.read(length))
            metadata = header.get(METADATA_KEY) or {}
            is_sealed = DIGEST_KEY in metadata or MARK_KEY in metadata
        except (ValueError, RecursionError, AttributeError, TypeError) as error:
            raise damaged_error(path, "its header is no JSON") from error
        if not is_sealed:
            return
        wanted = metadata.pop(DIGEST_KEY, None)
        digest = hashlib.sha256(_canonical(header))
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if metadata.get(MARK_KEY) != DIGEST_KEY or digest.hexdigest() != wanted:
        what = "its checksum does not match; write it anew, or take another copy"
        raise damaged_error(path, what)


def damaged_error(path: Path, what: str) -> InputError:
    """Return the error for a checkpoint that is not as it was written."""
    return InputError(f"checkpoint {path} is cut short or damaged: {what}")


def _canonical(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
