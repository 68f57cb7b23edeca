"""Choose the checkpoint that a run resumes from, and check that it is one of the same run."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from src.cli.run_checks import check_resume
from src.datamodules.geometry import GeometricAugmentation
from src.errors import InputError
from src.io import printable, remove_all_partial_files
from src.mmdet_bridge.checkpoints.files import (
    BEST_FILE,
    LAST_FILE,
    SCORE_IN_NAME,
    check_checkpoint_file,
    files_of_run,
)
from src.mmdet_bridge.checkpoints.reading import (
    CONFIG_KEY,
    POSITION_KEY,
    RUN_ID_KEY,
    check_archive,
    check_finite,
    describe_load_error,
    read_run_id,
)
from src.mmdet_bridge.checkpoints.untrusted_config import check_plain
from src.quoting import quote
from src.renamed_keys import upgrade_keys

log = logging.getLogger(__name__)

SUPERSEDED = "superseded"
MAX_SHOWN = 5
# A change of these makes the run another one; of those below, not.
SAME_KEYS = (
    *("seed", "module", "optimizer", "scheduler", "datamodule"),
    *("trainer.overfit_batches", "trainer.limit_train_batches"),
)
# Keys that runs of earlier versions lack, with the values that they had without saying so.
LATER_KEYS: Mapping[str, Any] = {
    "datamodule": {
        "geometric_augmentation": {
            "_target_": "src.datamodules.geometry.GeometricAugmentation",
            **asdict(GeometricAugmentation()),
        }
    }
}
FREE_KEYS = (
    # places; the images to train on are compared when the data is read
    *("datamodule.annotations", "datamodule.images", "datamodule.label_descriptions"),
    "datamodule.mask_images",
    *("datamodule.cache_dir", "datamodule.split_file", "datamodule.num_validation_images"),
    *("datamodule.split_seed", "datamodule.on_bad_rows", "datamodule.duplicates"),
    # speed and memory
    *("datamodule.batch_size", "datamodule.num_workers"),
    *("datamodule.prefetch_factor", "datamodule.persistent_workers"),
    # prediction
    *("datamodule.test_images", "datamodule.sample_submission", "datamodule.predict_"),
    *("module.min_score", "module.max_candidates", "module.mask_stages"),
    # of a run's first step
    "module.backbone_weights",
)
EVALUATOR = "callbacks.evaluator"
# Keys that a validation score depends on, by the beginning of its name.
SCORE_KEYS = {
    "validation/competition": (f"{EVALUATOR}.settings", f"{EVALUATOR}.metrics.competition_score"),
    "validation/coco": (f"{EVALUATOR}.metrics.coco_average_precision",),
    "": (
        *("callbacks.best_checkpoint.monitor", "callbacks.best_checkpoint.mode"),
        *("module.min_score", "module.max_candidates", "module.mask_stages"),
        *("datamodule.predict_short_edge_px", "datamodule.predict_long_edge_px"),
    ),
}
# Changes without a warning: the run's folder may move, and these train and keep nothing.
UNSAID_KEYS = (
    *("callbacks.run_checkpoint.dirpath", "callbacks.best_checkpoint.dirpath"),
    *(f"{EVALUATOR}.class_table_dir", f"{EVALUATOR}.num_images", "callbacks.progress"),
    *("callbacks.progress_log", "callbacks.learning_rate", "callbacks.training_speed"),
    *("trainer.default_root_dir", "trainer.plugins"),  # plugins: how files are written
)
# Callbacks of earlier versions, in place of callbacks.evaluator.
EARLIER_SCORERS = (
    *("callbacks.competition_score", "callbacks.coco_average_precision"),
    *("callbacks.class_table", "callbacks.validation_pictures"),
)
# Keys of ``trainer`` that make a run a trial; a real run resumes from none.
TRIAL_KEYS = ("overfit_batches", "limit_train_batches", "limit_val_batches")


@dataclass(frozen=True)
class FoundCheckpoint:
    """A whole checkpoint of a run."""

    path: Path
    content: Mapping[str, Any]  # saved by Lightning, ``RunCheckpoint`` and ``RunRecord``

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return int(self.content["global_step"])

    @property
    def initial_weights(self) -> Any:
        """The weights that the run began with, as its configuration names them."""
        return self.content[CONFIG_KEY].get("initial_weights")

    @property
    def run_id(self) -> str:
        """The id of the run, empty for one of a version that gave none."""
        return str(self.content.get(RUN_ID_KEY, ""))

    def is_at_the_end(self, *, max_epochs: int | None, max_steps: int) -> bool:
        """Return whether nothing is left to train up to these limits; -1: no limit."""
        epochs = self.content[POSITION_KEY]["epoch"]
        return (max_epochs not in (None, -1) and epochs >= max_epochs) or (
            max_steps != -1 and self.step >= max_steps
        )

    def describe_end(self, config: Mapping[str, Any]) -> str | None:
        """Return why the configuration leaves nothing to train; None if it does.

        An early stopping ends the run only as long as its configuration is unchanged.
        """
        limits = config["trainer"]
        if self.is_at_the_end(max_epochs=limits["max_epochs"], max_steps=limits["max_steps"]):
            return f"{self.path} is the end of the run"
        then, now = (_early_stopping(some) for some in (self.content[CONFIG_KEY], config))
        if self.content[POSITION_KEY].get("stopped_early") and then == now:
            return (
                f"early stopping ended the run at {self.path}; to train on, change its patience "
                "or leave it out"
            )
        return None

    def best_score(self) -> float | None:
        """Return the best score of the run's checkpoints."""
        scores = [state.get("best_model_score") for state in self.content["callbacks"].values()]
        return next((float(score) for score in scores if score is not None), None)


def choose_checkpoint(
    *, resume: str, directory: Path, trainer: Mapping[str, Any] | None = None
) -> FoundCheckpoint | None:
    """Return the checkpoint to resume from, or None to start from the beginning.

    Args:
        resume: ``auto`` (the newest whole checkpoint in the folder, if there is one), ``never``, or
            a path.
        directory: The run's checkpoints.
        trainer: Configuration of the trainer; ``auto`` skips checkpoints of a trial with other
            limits.

    Raises:
        InputError: The path names no file, or a file that is damaged or no checkpoint of a run; a
            trial would begin in the folder of a run that is none.
    """
    if resume == "never":
        return None
    if resume != "auto":
        check_resume(resume)
        return _read(Path(resume))
    return _newest_whole(directory, trial_limits(trainer or {}))


def describe_next_start(*, resume: str, directory: Path) -> str:
    """Return what the same command does after an interruption; see ``choose_checkpoint``."""
    has_own = bool(files_of_run(directory))
    if resume == "auto":
        if has_own:
            return f"the same command resumes from the last checkpoint in {directory}"
        return "there is no checkpoint yet, so the same command starts from the beginning"
    again = "starts from the beginning" if resume == "never" else f"starts again from {resume}"
    last = f"; resume=auto resumes from the last checkpoint in {directory}" if has_own else ""
    return f"the same command {again}, because of resume={resume}{last}"


def trial_limits(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits of a trial, which trains or validates on a part of the data.

    ``limit_val_batches=0``, which turns validation off, is none.
    """
    limits = {key: trainer.get(key) for key in TRIAL_KEYS}
    return {
        f"trainer.{key}": value
        for key, value in limits.items()
        if value is not None
        and not (isinstance(value, float) and value == 1.0)  # 1 is a single batch
        and not (value == 0 and key != "limit_train_batches")
    }


def archive_later_checkpoints(
    directory: Path,
    *,
    after_step: int,
    run_id: str | None = None,
    best: Collection[Path] | None = None,
) -> None:
    """Move the checkpoints that a run does not resume from to a folder of their own.

    So the newest in the folder is always the one to resume from. Damaged ones are moved, too, and
    unfinished files of a killed run are removed.

    Args:
        directory: The run's checkpoints.
        after_step: Checkpoints of later steps are moved.
        run_id: Checkpoints of other runs are moved; None: they stay.
        best: Checkpoints of this run, with a score in their names, that stay; None: all.
    """
    remove_all_partial_files(directory)
    last, moved = directory / LAST_FILE, []
    for path in files_of_run(directory):
        try:
            content = _peek(path)
            is_own = run_id is None or content.get(RUN_ID_KEY, "") == run_id
            if is_own and content["global_step"] <= after_step:
                continue
        except InputError:
            pass
        if last.exists() and last.samefile(path) and path != last:
            last.unlink()
        moved.append(path)
    moved += _superseded_best(directory, run_id=run_id, best=best) if run_id is not None else []
    for path in moved:
        _move(path, directory / SUPERSEDED)
    if moved:
        log.warning(
            "moved %d checkpoints to %s, because this run does not resume from them: %s",
            *(len(moved), directory / SUPERSEDED, ", ".join(path.name for path in moved)),
        )
    link = directory / BEST_FILE
    if link.is_symlink() and not link.exists():
        link.unlink()


def _superseded_best(directory: Path, *, run_id: str, best: Collection[Path] | None) -> list[Path]:
    """Return the checkpoints with a score that are another run's, or no longer of the best."""
    kept = None if best is None else {path.name for path in best}
    found = []
    for path in directory.glob("*.ckpt"):
        is_own = path.is_symlink() or read_run_id(path) == run_id
        # A link that is a file lies in a folder that was copied.
        has_score = SCORE_IN_NAME.search(path.name) is not None
        is_worse = has_score and kept is not None and path.name not in kept
        if is_worse or (not is_own and (has_score or path.name == BEST_FILE)):
            found.append(path)
    return found


def _move(path: Path, folder: Path) -> None:
    """Move a file to a folder, under a name that is free there."""
    folder.mkdir(parents=True, exist_ok=True)
    names = (f"{path.stem}-v{number}{path.suffix}" for number in itertools.count(2))
    targets = (folder / name for name in itertools.chain([path.name], names))
    path.replace(next(target for target in targets if not target.exists()))


def check_same_run(checkpoint: FoundCheckpoint, config: Mapping[str, Any]) -> None:
    """Compare the composed configuration with that of the checkpoint.

    Raises:
        InputError: A difference makes the run another one.
    """
    now, missing = _flat(config), "nothing"
    later = {key: value for key, value in _flat(LATER_KEYS).items() if key in now}
    saved = later | _flat(checkpoint.content[CONFIG_KEY])
    changed = [key for key in now | saved if now.get(key, missing) != saved.get(key, missing)]
    others = [key for key in changed if _is_below(key, SAME_KEYS)]
    then = {key: printable(saved.get(key, missing)) for key in changed}
    if others := [key for key in others if not key.startswith(FREE_KEYS)]:
        listed = "; ".join(
            f"{printable(key)}: {then[key]} then, {now.get(key, missing)} now"
            for key in others[:MAX_SHOWN]
        )
        more = f" and {len(others) - MAX_SHOWN} more" if len(others) > MAX_SHOWN else ""
        raise InputError(
            f"{checkpoint.path} is of a run with other values: {listed}{more}. Resume with the "
            "values of then, or start another run with name=... (its weights may begin from these: "
            f"{quote('initial_weights', checkpoint.path)})"
        )
    unsaid: tuple[str, ...] = UNSAID_KEYS
    if _is_of_earlier_version(saved):
        unsaid += (*EARLIER_SCORERS, EVALUATOR)
    for key in changed:
        if not key.startswith(("trainer.", "callbacks.")) or _is_below(key, unsaid):
            continue
        # a class of this project that was renamed
        if not (key.endswith("._target_") and str(saved.get(key)).startswith("src.")):
            own = now.get(key, missing)
            log.warning("%s: %s in the checkpoint, %s now", printable(key), then[key], own)
    if "initial_weights" in changed:
        path = now.get("initial_weights")
        is_absent = path is not None and not Path(path).exists()
        log.warning(
            "initial_weights: %s in the checkpoint, %s%s now: without effect, because the run "
            "resumes with the weights of %s",
            *(printable(saved.get("initial_weights")), path, " (no such file)" * is_absent),
            checkpoint.path,
        )


def score_changes(checkpoint: FoundCheckpoint, config: Mapping[str, Any]) -> list[str]:
    """Return the changed keys that make the best checkpoints' scores incomparable.

    Empty if no checkpoint is kept by its score.
    """
    saved, now = _flat(checkpoint.content[CONFIG_KEY]), _flat(config)
    monitor = now.get("callbacks.best_checkpoint.monitor")
    states = checkpoint.content["callbacks"].values()
    if monitor is None or not any(state.get("best_k_models") for state in states):
        return []
    if _is_of_earlier_version(saved):
        return [EVALUATOR]
    keys = [key for name, some in SCORE_KEYS.items() if monitor.startswith(name) for key in some]
    return [key for key in now | saved if _is_below(key, keys) and saved.get(key) != now.get(key)]


def _is_of_earlier_version(saved: Mapping[str, Any]) -> bool:
    """Return whether a callback of its own made the score, without the filler row."""
    return any(_is_below(key, EARLIER_SCORERS) for key in saved)


def _early_stopping(config: Mapping[str, Any]) -> list[Any]:
    """Return the configuration of the callbacks that stop a run early."""
    nodes = _mapping(config.get("callbacks")).values()
    return [one for one in nodes if str(_mapping(one).get("_target_")).endswith("EarlyStopping")]


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a part of a configuration; empty if it is none, for a file can hold anything."""
    return value if isinstance(value, Mapping) else {}


def _is_below(key: str, nodes: Collection[str]) -> bool:
    """Return whether a key is one of ``nodes``, or lies below one."""
    return any(key == node or key.startswith(f"{node}.") for node in nodes)


def _newest_whole(directory: Path, limits: Mapping[str, Any]) -> FoundCheckpoint | None:
    readable, trials = [], []
    for path in files_of_run(directory):
        try:
            content = _peek(path)
        except InputError as error:
            log.warning("left out: %s", error)
            continue
        others = trial_limits(_mapping(content[CONFIG_KEY].get("trainer")))
        if others == limits:
            readable.append((content["global_step"], path.name != LAST_FILE, path, content))
        elif others:
            trials.append(f"{path.name} ({_listed(others)})")
        else:
            raise InputError(
                f"{_listed(limits)} makes this a trial, but {path} is of a run without: give the "
                "trial a folder of its own with name=..."
            )
    if trials:
        log.warning("left out: checkpoints of a trial: %s", ", ".join(trials))
    for *_, path, content in sorted(readable, key=itemgetter(0, 1, 2), reverse=True):
        try:
            return _checked(path, content)
        except InputError as error:
            log.warning("left out: %s", error)
    return None


def _listed(limits: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={printable(value)}" for key, value in limits.items())


def _read(path: Path) -> FoundCheckpoint:
    return _checked(path, _peek(path))


def _checked(path: Path, content: Mapping[str, Any]) -> FoundCheckpoint:
    """Compare the checksums of a file that was peeked into, and check its tensors."""
    check_archive(path)
    check_finite(content["state_dict"], path)
    return FoundCheckpoint(path, content)


def _peek(path: Path) -> Mapping[str, Any]:
    """Read all but the tensors, which stay on the disk, without comparing checksums."""
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
            f"checkpoint {path} is none that a run can resume from; to begin from its weights: "
            f"{quote('initial_weights', path)}"
        )
    _check_content(content, path)
    return {**content, CONFIG_KEY: upgrade_keys(content[CONFIG_KEY])}


def _check_content(content: Mapping[str, Any], path: Path) -> None:
    """Refuse content that Lightning's and our callbacks would take from a file unchecked."""
    position, weights = content[POSITION_KEY], content["state_dict"]
    epoch = _mapping(position).get("epoch")

    def is_count(value: object) -> bool:
        return type(value) is int and value >= 0

    for key, legal, is_legal in (
        ("global_step", "a count of steps", is_count(content["global_step"])),
        (POSITION_KEY, "a position in the data", isinstance(position, Mapping)),
        (f"{POSITION_KEY}.epoch", "a count of epochs", is_count(epoch)),
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
        # Lightning removes these files for a better one: nothing outside the run's folder.
        for value in [*paths, *(best if isinstance(best, Mapping) else ())]:
            if "://" in str(value) or "::" in str(value) or ".." in Path(str(value)).parts:
                raise InputError(
                    f"checkpoint {path}: callbacks.{printable(name)} must name files of the run, "
                    f"got {printable(repr(value))}"
                )


def _is_mapping_of(value: object, kind: type) -> bool:
    return isinstance(value, Mapping) and all(isinstance(part, kind) for part in value.values())


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten ``{"a": {"b": 1}}`` to ``{"a.b": 1}``."""
    if not isinstance(config, Mapping) or not config:
        return {prefix: config}
    return {
        name: value
        for key, node in config.items()
        for name, value in _flat(node, f"{prefix}.{key}" if prefix else str(key)).items()
    }
