"""The checksum of a file of weights, in its header: a flipped bit is noticed when it is read.

A safetensors file is eight bytes of length, a JSON header and the numbers. What the header calls
``__metadata__`` holds text by name, which other programs pass over. Here it carries the SHA-256 of
the header without it and of the numbers, and a second key that says so, lest a flipped bit in the
name of the first makes a damaged file one of somebody else. Keys are sorted, which the library does
not do: the same weights are the same bytes.
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
    """Return length and header of a safetensors file with its checksum, and the numbers.

    Args:
        content: the file as the library writes it.
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
    """Compare a file's checksum; a file of another program, which carries none, passes.

    Args:
        path: a safetensors file whose header has a sane length.

    Raises:
        InputError: the file is not as it was written.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        try:
            header = json.loads(file.read(length))
            metadata = header.get(METADATA_KEY) or {}
            is_sealed = DIGEST_KEY in metadata or MARK_KEY in metadata
        except (ValueError, RecursionError, AttributeError, TypeError) as error:
            raise InputError(
                f"checkpoint {path} is cut short or damaged: its header is no JSON"
            ) from error
        if not is_sealed:
            return
        wanted = metadata.pop(DIGEST_KEY, None)
        digest = hashlib.sha256(_canonical(header))
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if metadata.get(MARK_KEY) != DIGEST_KEY or digest.hexdigest() != wanted:
        raise InputError(
            f"checkpoint {path} is cut short or damaged: its checksum does not match; write it "
            "anew, or take another copy"
        )


def _canonical(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
