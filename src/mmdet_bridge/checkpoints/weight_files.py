"""Files of weights: the names that wrappers give to tensors, and a checksum in the header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import InputError
from src.io import parse_json, printable

if TYPE_CHECKING:
    from torch import Tensor

LIGHTNING_PREFIX = "detector."  # of a detector's weights in a Lightning checkpoint
AVERAGE_PREFIX = "ema_"
# Data parallel training, torch.compile, Lightning, modules that hold a detector as their model, and
# moving averages.
WRAPPERS = ("module.", "_orig_mod.", LIGHTNING_PREFIX, "model.", "ema_model.", AVERAGE_PREFIX)
AVERAGE_COUNTERS = ("n_averaged", "steps")  # of torch's and mmengine's averaged models
EXAMPLES = 3  # names of each kind in a message

METADATA_KEY = "__metadata__"
DIGEST_KEY, MARK_KEY = "weights_sha256", "weights_checksum"
LENGTH_BYTES = 8
_ALIGNMENT = 8
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class Unwrapped:
    """Weights under mmdet's names.

    Attributes:
        plain: Name -> (name in the file, tensor), in the file's order.
        prefixes: Prefixes of all names that were removed, outermost first.
        second_set: Names in the file of the tensors that a moving average keeps beside the weights.
            mmcv's EMAHook exchanges the two before it writes, so that the plain names are the mean.
    """

    plain: dict[str, tuple[str, Tensor]]
    prefixes: tuple[str, ...]
    second_set: tuple[str, ...]

    def notice(self) -> str | None:
        """Describe in one line what was removed; None if names are as usual."""
        prefixes = "".join(prefix for prefix in self.prefixes if prefix != LIGHTNING_PREFIX)
        said = []
        if prefixes:
            said.append(f"its names start with {prefixes}, which is taken off")
        if self.second_set:
            said.append(
                f"{len(self.second_set)} tensors of a moving average are left out "
                f"({examples(self.second_set)})"
            )
        return "; ".join(said) or None


def unwrap(weights: Mapping[str, Tensor]) -> Unwrapped:
    """Remove the prefixes that wrappers give to all names."""
    second = [name for name in weights if name.startswith(AVERAGE_PREFIX)]
    if len(second) == len(weights):
        second = []
    left_out = {*second, *AVERAGE_COUNTERS}
    plain = {name: (name, value) for name, value in weights.items() if name not in left_out}
    prefixes = []
    while plain and (
        prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in plain)), None)
    ):
        prefixes.append(prefix)
        plain = {name.removeprefix(prefix): entry for name, entry in plain.items()}
    return Unwrapped(plain=plain, prefixes=tuple(prefixes), second_set=tuple(second))


def detector_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under mmdet's names, whichever program wrote the file."""
    return {name: value for name, (_, value) in unwrap(weights).plain.items()}


def examples(names: Sequence[str]) -> str:
    """Return the first few of many names, for a message."""
    shown = [printable(name) for name in names[:EXAMPLES]]
    return ", ".join(shown + ["..."] * (len(names) > EXAMPLES))


def misfits(kinds: Mapping[str, Sequence[str]]) -> str:
    """Return ``2 missing (a, b); 1 unknown (c)`` for the names of each kind; empty for none."""
    return "; ".join(
        f"{len(names)} {kind} ({examples(names)})" for kind, names in kinds.items() if names
    )


def sealed_header(content: memoryview) -> tuple[bytes, memoryview]:
    """Return length and header of a safetensors file with a checksum, and its numbers.

    A file is eight bytes of length, a JSON header and the numbers. The header's ``__metadata__``
    holds texts by name, which other programs ignore: here the SHA-256 of the rest of the header and
    of the numbers, and a second key that announces it, so that a flipped bit in the first key's
    name is noticed, too. Keys are sorted: the same weights are the same bytes.

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
    """Compare the checksum of a safetensors file whose header has a sane length.

    A file of another program, without a checksum, passes.

    Raises:
        InputError: The file is not as it was written.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        try:
            header = parse_json(file.read(length))
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
