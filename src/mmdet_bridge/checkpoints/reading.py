"""Read and write weights as data: no code in a file is run unless the file is trusted.

mmengine's own loader falls back to running pickled code, so it is not used. Imports torch only.
"""

from __future__ import annotations

import hashlib
import json
import pickletools
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from src.annotations.categories import CLASS_NAMES_KEY, ClassList
from src.errors import InputError
from src.io import atomic_path, parse_json, printable
from src.mmdet_bridge.checkpoints.files import check_checkpoint_file, check_weights_path
from src.mmdet_bridge.checkpoints.untrusted_config import check_class_list, check_plain
from src.mmdet_bridge.checkpoints.weight_files import (
    check_weights_seal,
    damaged_error,
    sealed_header,
)

WEIGHTS_KEY = "state_dict"  # of Lightning's and mmdetection's checkpoints
OTHER_WEIGHTS_KEY = "model"  # of many other tools' checkpoints
META_KEY = "meta"  # mmdetection's notes beside the weights: its version, the classes' names
CONFIG_KEY = "config"  # the composed configuration of the run that wrote a checkpoint
HYPER_PARAMETERS_KEY = "hyper_parameters"  # of Lightning's module
NOTES = (META_KEY, HYPER_PARAMETERS_KEY, "callbacks", CONFIG_KEY)
PREDICTION_SIZES = ("predict_short_edge_px", "predict_long_edge_px")  # of the datamodule
INFERENCE_KEYS = ("test_cfg", "sizes")  # of a detector, which prediction may set
POSITION_KEY = "position"  # of a run in its data
RUN_ID_KEY = "run_id"  # tells the checkpoints of one training from those of others
MAX_HEADER_BYTES = 16 * 2**20  # the winning model's has 0.2 MB
MAX_EXPANSION = 8  # tensors may share their bytes, tied weights, say
PICKLES_OF_OLDER_FORMAT = 4  # torch.save before 1.6: magic number, version, machine, content

# Numbers of numpy's, as in mmdetection's notes (a best score, say). Their constructors turn bytes
# into numbers and do nothing else; arrays of objects are refused, as their type is not listed.
NUMPY_NUMBERS: list[Any] = [
    np.dtype,
    np.ndarray,
    *{type(np.dtype(code)) for code in np.typecodes["AllFloat"] + np.typecodes["AllInteger"] + "?"},
    *(
        (number.__reduce__()[0], f"{module}.multiarray.{constructor}")
        for module in ("numpy._core", "numpy.core")  # the second before numpy 2
        for number, constructor in ((np.float64(), "scalar"), (np.zeros(0), "_reconstruct"))
    ),
]


@dataclass(frozen=True)
class Checkpoint:
    """Content of a file: parameters and buffers by name, and the notes beside them."""

    path: Path
    weights: dict[str, Tensor]
    meta: Mapping[str, Any] = field(default_factory=dict)  # mmdetection's notes
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)  # of Lightning's module
    callbacks: Mapping[str, Any] = field(default_factory=dict)  # states of Lightning's callbacks
    config: Mapping[str, Any] = field(default_factory=dict)  # of the run that wrote it

    @property
    def classes(self) -> ClassList | None:
        """The classes that the file names, None if it names none.

        Raises:
            InputError: They are not legal.
        """
        found = check_class_list(self.hyper_parameters, source=f"checkpoint {self.path}")
        if found is None:
            return None
        category_ids = range(found[0]) if found[1] is None else found[1]
        return ClassList.from_plain(category_ids, self.hyper_parameters.get(CLASS_NAMES_KEY))


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, see ``load_checkpoint``."""
    return load_checkpoint(path).weights


def load_checkpoint(
    path: str | Path, *, trusted: bool = False, only_notes: bool = False
) -> Checkpoint:
    """Read a checkpoint, on the CPU.

    Args:
        path: Safetensors, or a file of ``torch.save``: a dict of tensors, or a checkpoint that
            keeps them under ``state_dict`` (Lightning, mmdetection) or ``model`` (other tools).
            The kind is found by content, not by name.
        trusted: Whether code in the file may run where it cannot be read without.
        only_notes: Whether to leave weights on the disk until they are used, where the format
            allows it, and skip checksums: for the notes beside the weights.

    Returns:
        The weights under the file's names, and mmdetection's or Lightning's notes.

    Raises:
        InputError: The file is missing, cut short, no checkpoint, holds no weights, or cannot be
            read without running code from it.
    """
    path = Path(path)
    check_checkpoint_file(path)
    with path.open("rb") as file:
        start = file.read(9)
    # Eight bytes of length, then a JSON header: https://github.com/safetensors/safetensors#format
    if start[8:] == b"{":
        tensors, metadata = _load_safetensors(path)
        return Checkpoint(path=path, weights=_check_weights(tensors, path), **_carried(metadata))
    is_archive = start.startswith(b"PK")
    if is_archive:
        check_archive(path, checksums=not only_notes)
    content = _load_pickled(path, trusted=trusted, mapped=is_archive and only_notes)
    weights: Any = content
    notes: dict[str, Mapping[str, Any]] = {}
    if isinstance(content, Mapping):
        notes = {key: content[key] for key in NOTES if isinstance(content.get(key), Mapping)}
        for key in (OTHER_WEIGHTS_KEY, WEIGHTS_KEY):
            if isinstance(content.get(key), Mapping):
                weights = content[key]
    return Checkpoint(path=path, weights=_check_weights(weights, path), **notes)


def check_finite(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights with a value that is nan or infinite.

    Raises:
        InputError: Names the file, the first such tensor and how many there are.
    """
    bad = [
        name
        for name, value in weights.items()
        if (value.is_floating_point() or value.is_complex()) and not value.isfinite().all()
    ]
    if bad:
        raise InputError(
            f"checkpoint {path}: weights must be finite, got nan or infinite values in {len(bad)} "
            f"of {len(weights)} tensors, the first {printable(bad[0])}; take a checkpoint from "
            "before the loss was nan"
        )


def check_given_once(
    known: dict[str, Path], path: Path, weights: Mapping[str, Tensor], *, cure: str = ""
) -> None:
    """Refuse weights that another file holds, too, whatever the two are called.

    ``last.ckpt``, the file of its epoch and ``best.ckpt`` may be links or copies of one checkpoint,
    which would count twice.

    Args:
        known: File by digest; the new one is added.
        path: The file.
        weights: Its weights.
        cure: The end of the message.

    Raises:
        InputError: Names both files.
    """
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    other = known.setdefault(digest.hexdigest(), path)
    if other is not path:
        raise InputError(
            f"checkpoint must be different checkpoints, got {other} and {path}, which hold the "
            f"same weights{cure}"
        )


def read_run_id(path: str | Path) -> str:
    """Return the id of the training that wrote a checkpoint; empty if there is none to read.

    Tensors are not read.
    """
    try:
        check_checkpoint_file(Path(path))
        check_archive(Path(path), checksums=False)
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception:  # as below; whoever loads the file says what is wrong with it
        return ""
    return str(content.get(RUN_ID_KEY, "")) if isinstance(content, Mapping) else ""


def save_weights(
    state_dict: Mapping[str, Tensor], path: str | Path, *, notes: Mapping[str, str] | None = None
) -> None:
    """Write weights as safetensors with a checksum, atomically.

    The same weights and notes give the same bytes.

    Args:
        state_dict: Tensors of any device and layout; those that share memory are written twice.
        path: Ends in ``.safetensors``; its folder is made if missing.
        notes: Origin of the weights, kept in the file's header.

    Raises:
        InputError: Another ending.
    """
    path = check_weights_path(path)
    plain = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state_dict.items()
    }
    # Not save_file, whose files no other user of the machine may read.
    metadata = {**(notes or {}), "format": "pt"}
    header, numbers = sealed_header(memoryview(safetensors.torch.save(plain, metadata=metadata)))
    with (
        atomic_path(path, sync=True, num_bytes=len(header) + len(numbers)) as partial,
        partial.open("wb") as file,
    ):
        file.write(header)
        file.write(numbers)


def _load_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Return the tensors and the texts of the header."""
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    size = path.stat().st_size
    if header > size - 8:
        raise damaged_error(path, f"its header takes {header} bytes, the file has {size}")
    if header > MAX_HEADER_BYTES:
        raise InputError(
            f"checkpoint {path}: a header of safetensors must have at most {MAX_HEADER_BYTES} "
            f"bytes, got {header}"
        )
    check_weights_seal(path)
    try:
        with safetensors.safe_open(path, framework="pt") as content:
            metadata = content.metadata() or {}
        return safetensors.torch.load_file(path), metadata
    except Exception as error:  # a damaged file can make the reader fail in any way
        raise damaged_error(path, printable(error)) from error


def class_notes(category_ids: Sequence[int]) -> dict[str, str]:
    """Return the classes of a file of weights as text for its header."""
    values = {"num_classes": len(category_ids), "category_ids": list(category_ids)}
    return {HYPER_PARAMETERS_KEY: json.dumps(values)}


def carried_notes(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the model, classes and sizes of a checkpoint as texts for the header of a file."""
    config = checkpoint.config.get("datamodule")
    sizes = {
        key: config[key]
        for key in PREDICTION_SIZES
        if isinstance(config, Mapping) and type(config.get(key)) is int
    }
    notes = {HYPER_PARAMETERS_KEY: checkpoint.hyper_parameters}
    if sizes:
        notes[CONFIG_KEY] = {"datamodule": sizes}
    try:
        for key, value in notes.items():
            check_plain(value, source=f"checkpoint {checkpoint.path}", key=key)
        return {key: json.dumps(value, sort_keys=True) for key, value in notes.items() if value}
    except (InputError, TypeError, ValueError):  # of another program, with more than values
        return {}


def _carried(metadata: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
    """Parse the texts of ``carried_notes``; ignore anything but a JSON object."""
    found: dict[str, Mapping[str, Any]] = {}
    for key in (HYPER_PARAMETERS_KEY, CONFIG_KEY):
        try:
            content = parse_json(metadata.get(key, "null"))
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            found[key] = content
    return found


def check_archive(path: Path, *, checksums: bool = True) -> None:
    """Check a ``torch.save`` file for what ``torch.load`` does not look at.

    Args:
        path: A zip archive.
        checksums: Whether to read the file and compare its checksums, too.

    Raises:
        InputError: The archive is damaged, or would take more memory than the file has bytes:
            ``torch.save`` never compresses, so parts that are compressed or share their bytes make
            a bomb.
    """
    damaged = None
    try:
        with zipfile.ZipFile(path) as archive:
            problem = _archive_problem(archive, path.stat().st_size)
            if checksums and problem is None:
                damaged = archive.testzip()
    except Exception as error:  # as above
        raise damaged_error(path, printable(error)) from error
    if problem is not None:
        raise InputError(f"checkpoint {path} is no file of torch.save: {problem}")
    if damaged:
        raise InputError(
            f"checkpoint {path} is damaged: wrong checksum of its part {printable(damaged)}"
        )


def _archive_problem(archive: zipfile.ZipFile, file_bytes: int) -> str | None:
    """Describe what ``torch.save`` would not have written in the directory of an archive."""
    whole = 0
    for part in archive.infolist():
        whole += part.file_size
        if part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size:
            return (
                f"its part {printable(part.filename)} is compressed ({part.compress_size} bytes "
                f"that unpack to {part.file_size}), which torch.save never does"
            )
    if whole > file_bytes:
        return f"its parts claim {whole} bytes, the file has {file_bytes}"
    return None


def _load_pickled(path: Path, *, trusted: bool, mapped: bool) -> Any:
    with torch.serialization.safe_globals(NUMPY_NUMBERS):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # as above
            code = _code_wanted(path, error)
            if not code:
                raise InputError(
                    f"checkpoint {path} is cut short, damaged, or no checkpoint at all: expected "
                    f"safetensors or a file of torch.save ({describe_load_error(error)})"
                ) from error
            if not trusted:
                raise InputError(
                    f"checkpoint {path} holds more than weights, and loading the rest would run "
                    f"code from the file: {', '.join(code)}. Where it was made, save the weights "
                    "alone: torch.save({'state_dict': checkpoint['state_dict']}, ...), or "
                    "mmdetection's tools/model_converters/publish_model.py. If you trust whoever "
                    "made it as you trust a program: python -m src.import_weights trusted=true"
                ) from error
    try:  # the one place where code in a file may run
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # code can fail in any way
        raise InputError(
            f"checkpoint {path} fails to load although it is trusted ({describe_load_error(error)})"
        ) from error


def _code_wanted(path: Path, error: Exception) -> list[str]:
    """Return what a pickle would call, read from its text without running it."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # torch lists them for its newer format only
        named = re.findall(r"\b(?:GLOBAL|class) (\w+(?:\.\w+)+)", str(error))
        # The end of a truncated file can cut a name short.
        return named if _pickles_are_whole(path) else []


def _pickles_are_whole(path: Path) -> bool:
    """Return whether the pickles before an older file's numbers are whole; parsed, not run."""
    with path.open("rb") as file:
        try:
            for _ in range(PICKLES_OF_OLDER_FORMAT):
                if not file.peek(1):
                    break
                for _operation in pickletools.genops(file):
                    pass
        except Exception:  # damaged bytes can make the parser fail in any way
            return False
    return True


def describe_load_error(error: Exception) -> str:
    """Return one line for an error of ``torch.load``, without its advice to run the file's code."""
    lines = re.sub(r"Check the documentation of torch\.load.*", "", str(error), flags=re.S)
    lines = re.sub(r"\(\d+\) In PyTorch.*?WeightsUnpickler error:", "", lines, flags=re.S)
    last = (lines.strip().splitlines() or [""])[-1]
    if "weights_only" in last:
        last = "it is no plain file of weights"
    return f"{type(error).__name__}: {printable(last.strip())}"


def _check_weights(content: Any, path: Path) -> dict[str, Tensor]:
    found = None
    if not isinstance(content, Mapping):
        found = f"a {type(content).__name__}"
    elif strange := [name for name, value in content.items() if not isinstance(value, Tensor)]:
        found = f"'{printable(strange[0])}', which is no tensor"
    elif not content:
        found = "nothing"
    if found is not None:
        raise InputError(
            f"checkpoint {path} must hold weights, tensors by name or under '{WEIGHTS_KEY}', got "
            f"{found}"
        )
    _check_tensors(content, path)
    return dict(content)


def _check_tensors(weights: Mapping[Any, Tensor], path: Path) -> None:
    """Refuse tensors that are more than a block of numbers, or larger than their file."""
    whole, file_bytes = 0, path.stat().st_size
    for name, value in weights.items():
        if type(name) is not str:
            raise InputError(f"checkpoint {path}: names must be text, got {printable(repr(name))}")
        plain = type(value) in (Tensor, torch.nn.Parameter) and not value.is_quantized
        if not plain or value.layout != torch.strided or value.device.type != "cpu":
            raise InputError(
                f"checkpoint {path}: {printable(name)} must be a dense tensor of plain numbers, "
                f"got {type(value).__name__}, {value.layout}, {value.dtype}, {value.device.type}"
            )
        whole += value.numel() * value.element_size()
    if whole > MAX_EXPANSION * file_bytes:
        raise InputError(
            f"checkpoint {path}: its tensors claim {whole} bytes, the file has {file_bytes}"
        )
