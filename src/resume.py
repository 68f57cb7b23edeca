"""Which checkpoint a run goes on from, and whether it is a checkpoint of the same run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from src.callbacks.run_checkpoint import EPOCH_FILES, LAST_FILE, POSITION_KEY, STEP_FILES
from src.errors import InputError
from src.io import printable, remove_all_partial_files
from src.mmdet_bridge.checkpoints import (
    CONFIG_KEY,
    check_archive,
    check_checkpoint_file,
    check_finite,
    describe_load_error,
)
from src.mmdet_bridge.untrusted_config import check_plain

log = logging.getLogger(__name__)

SUPERSEDED = "superseded"
# What makes the run another one, and what of it does not.
SAME_KEYS = ("seed", "module", "optimizer", "scheduler", "datamodule")
FREE_KEYS = (
    # places; the photos trained on are compared by themselves, when the data is read
    "datamodule.train_annotations",
    "datamodule.train_images",
    "datamodule.label_descriptions",
    "datamodule.cache_directory",
    "datamodule.split_file",
    "datamodule.validation_images",
    "datamodule.split_seed",
    "datamodule.on_bad_rows",
    "datamodule.duplicates",
    # speed and memory
    "datamodule.batch_size",
    "datamodule.num_workers",
    "datamodule.prefetch_factor",
    "datamodule.persistent_workers",
    # prediction
    "datamodule.test_images",
    "datamodule.sample_submission",
    "datamodule.predict_",
    "module.score_floor",
    "module.max_candidates",
    "module.mask_stages",
)


@dataclass(frozen=True)
class FoundCheckpoint:
    """A whole checkpoint of a run.

    Attributes:
        path: its file.
        content: what Lightning saved, and ``RunCheckpoint`` and ``ComposedConfig`` with it.
    """

    path: Path
    content: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return int(self.content["global_step"])

    def is_at_the_end(self, *, max_epochs: int | None, max_steps: int) -> bool:
        """Whether training until then has nothing left to do; -1: no limit."""
        epochs = self.content[POSITION_KEY]["epoch"]
        return (max_epochs not in (None, -1) and epochs >= max_epochs) or (
            max_steps != -1 and self.step >= max_steps
        )

    def best_score(self) -> float | None:
        """The best score that a ``ModelCheckpoint`` of the run knew."""
        scores = [state.get("best_model_score") for state in self.content["callbacks"].values()]
        return next((float(score) for score in scores if score is not None), None)


def choose_checkpoint(*, resume: str, directory: Path) -> FoundCheckpoint | None:
    """Return the checkpoint to go on from, or None to start anew.

    Args:
        resume: ``auto`` (the newest whole checkpoint in the folder, if there is one), ``never``, or
            a path.
        directory: the run's checkpoints.

    Raises:
        InputError: the path names no file, or a file that is damaged or no checkpoint of a run.
    """
    if resume == "never":
        return None
    if resume != "auto":
        path = Path(resume)
        if not path.exists():
            raise InputError(f"resume={resume}: no such file; legal: auto, never, or a checkpoint")
        return _read(path)
    return _newest_whole(directory)


def set_aside(directory: Path, *, after_step: int) -> None:
    """Move the checkpoints of later steps, which the run is about to do again, out of the way.

    So the newest in the folder is always the one to go on from. Damaged ones are moved, too, and
    what a killed run left unfinished is removed.
    """
    remove_all_partial_files(directory)
    last = directory / LAST_FILE
    for path in _files(directory):
        try:
            if _peek(path)["global_step"] <= after_step:
                continue
        except InputError:
            pass
        if last.exists() and last.samefile(path) and path != last:
            last.unlink()
        (directory / SUPERSEDED).mkdir(exist_ok=True)
        path.replace(directory / SUPERSEDED / path.name)
        log.warning("moved %s to %s/, because the run does its steps again", path, SUPERSEDED)


def check_same_run(checkpoint: FoundCheckpoint, config: Mapping[str, Any]) -> None:
    """Compare the composed configuration with that of the checkpoint.

    Raises:
        InputError: a difference that would be without effect, or make the run another one.
    """
    saved, now = _flat(checkpoint.content[CONFIG_KEY]), _flat(config)
    missing = "nothing"
    changed = [key for key in now | saved if now.get(key, missing) != saved.get(key, missing)]
    others = [key for key in changed if key.split(".")[0] in SAME_KEYS]
    if others := [key for key in others if not key.startswith(FREE_KEYS)]:
        listed = "; ".join(
            f"{printable(key)}: {printable(saved.get(key, missing))} then, "
            f"{now.get(key, missing)} now"
            for key in others[:5]
        )
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        raise InputError(
            f"{checkpoint.path} is of a run with other values: {listed}{more}. Go on with the "
            "values of then, or start another run with name=... (its weights may begin from these: "
            f"initial_weights={checkpoint.path})"
        )
    for key in changed:
        if key.startswith("trainer."):
            log.warning(
                "%s: %s in the checkpoint, %s now",
                printable(key),
                printable(saved.get(key, missing)),
                now.get(key),
            )


def _newest_whole(directory: Path) -> FoundCheckpoint | None:
    readable = []
    for path in _files(directory):
        try:
            readable.append((_peek(path)["global_step"], path.name != LAST_FILE, path))
        except InputError as error:
            log.warning("left out: %s", error)
    for *_, path in sorted(readable, reverse=True):
        try:
            return _read(path)
        except InputError as error:
            log.warning("left out: %s", error)
    return None


def _files(directory: Path) -> list[Path]:
    """A run's checkpoints; ``last.ckpt`` only where it is a file of its own."""
    files = sorted([*directory.glob(EPOCH_FILES), *directory.glob(STEP_FILES)])
    last = directory / LAST_FILE
    if last.exists() and not any(last.samefile(path) for path in files):
        files.append(last)
    return files


def _read(path: Path) -> FoundCheckpoint:
    check_checkpoint_file(path)
    check_archive(path)
    content = _peek(path)
    check_finite(content["state_dict"], path)
    return FoundCheckpoint(path, content)


def _peek(path: Path) -> Mapping[str, Any]:
    """Read all but the tensors, which stay on the disk; checksums are not compared."""
    check_checkpoint_file(path)
    check_archive(path, checksums=False)
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # a damaged file can make the reader fail in any way
        raise InputError(
            f"checkpoint {path} is cut short, damaged, or no checkpoint: "
            f"{describe_load_error(error)}"
        ) from error
    wanted = (POSITION_KEY, CONFIG_KEY, "global_step", "callbacks", "state_dict")
    if not isinstance(content, Mapping) or any(key not in content for key in wanted):
        raise InputError(
            f"checkpoint {path} is none that a run can go on from; to begin from its weights: "
            f"initial_weights={path}"
        )
    _check_content(content, path)
    return content


def _check_content(content: Mapping[str, Any], path: Path) -> None:
    """Refuse what Lightning's and our callbacks would take from a file without a look at it."""
    position, weights = content[POSITION_KEY], content["state_dict"]
    for key, legal, is_legal in (
        ("global_step", "a count of steps", _is_count(content["global_step"])),
        (POSITION_KEY, "a position in the data", isinstance(position, Mapping)),
        (
            f"{POSITION_KEY}.epoch",
            "a count of epochs",
            isinstance(position, Mapping) and _is_count(position.get("epoch")),
        ),
        (CONFIG_KEY, "a configuration", isinstance(content[CONFIG_KEY], Mapping)),
        ("callbacks", "states by name", _is_mapping_of(content["callbacks"], Mapping)),
        ("state_dict", "tensors by name", _is_mapping_of(weights, torch.Tensor)),
    ):
        if not is_legal:
            raise InputError(f"checkpoint {path}: {key} must be {legal}, got something else")
    check_plain(content[CONFIG_KEY], source=f"checkpoint {path}", key=CONFIG_KEY, lookups=True)
    for name, state in content["callbacks"].items():
        best = state.get("best_k_models")
        paths = [value for key, value in state.items() if str(key).endswith("_path")]
        # Files that Lightning removes when a better one comes: nothing outside the run's folder.
        for value in [*paths, *(best if isinstance(best, Mapping) else ())]:
            if "://" in str(value) or "::" in str(value) or ".." in Path(str(value)).parts:
                raise InputError(
                    f"checkpoint {path}: callbacks.{printable(name)} must name files of the run, "
                    f"got {printable(repr(value))}"
                )


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_mapping_of(value: object, kind: type) -> bool:
    return isinstance(value, Mapping) and all(isinstance(part, kind) for part in value.values())


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    if not isinstance(config, Mapping) or not config:
        return {prefix: config}
    return {
        name: value
        for key, node in config.items()
        for name, value in _flat(node, f"{prefix}.{key}" if prefix else str(key)).items()
    }
