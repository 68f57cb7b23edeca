"""From checkpoints to the detectors of an ensemble."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from src.errors import InputError
from src.mmdet_bridge.checkpoints import (
    Checkpoint,
    check_checkpoint_file,
    check_finite,
    check_given_once,
    find_checkpoint,
    load_checkpoint,
    read_run_id,
)
from src.mmdet_bridge.config import Detector, build_detector
from src.mmdet_bridge.detectors import check_member, check_members, load_weights
from src.mmdet_bridge.untrusted_config import check_class_list, check_untrusted_detector
from src.postprocess.prediction_meta import describe_difference

log = logging.getLogger(__name__)

SCORE_IN_NAME = re.compile(r"_score_(\d+(?:\.\d+)?)(?:-v\d+)?\.ckpt$")
SCORE_TYPES = (int, float, torch.Tensor)
LAST_CHECKPOINT = "last.ckpt"  # carries the states of the callbacks that kept the best
INFERENCE_KEYS = (
    "test_cfg",
    "sizes",
)  # the configuration's, whatever a checkpoint was trained with
DIFFERENCES_SHOWN = 3


def checkpoint_paths(checkpoint: Any, *, best: int | None, directory: Path) -> list[Path]:
    """The checkpoints of an ensemble.

    Args:
        checkpoint: ``checkpoint=``: a path, a list of paths, or None.
        best: None: those of ``checkpoint``. A number: so many of the folder, by score.
        directory: a run's folder of checkpoints.

    Raises:
        InputError: none given, given in both ways, or no such file.
    """
    if best is not None:
        if checkpoint is not None:
            raise InputError(
                f"checkpoint={checkpoint} and ensemble.best={best} are given: one of both is legal"
            )
        return best_checkpoints(directory, best)
    names = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint or [])
    if not names:
        raise InputError(
            "checkpoint=null: give the trained weights, a path or a list of paths, or "
            "ensemble=top3, which takes a run's best"
        )
    paths = [find_checkpoint(str(name)) for name in names]
    for path in paths:
        check_checkpoint_file(path)
    return paths


def best_checkpoints(directory: Path, count: int) -> list[Path]:
    """The checkpoints of a run with the highest scores, the best first; of equal ones by name.

    Scores are in the names (``best_epoch_07_score_0.3312.ckpt``); where no name has one, the state
    of the ``ModelCheckpoint`` callbacks in ``last.ckpt`` says which files were the best.

    Raises:
        InputError: there are fewer; says how many, and where they were looked for.
    """
    named = [(SCORE_IN_NAME.search(path.name), path) for path in directory.glob("*.ckpt")]
    of_runs = {path: read_run_id(path) for found, path in named if found}
    run_id = _newest_run_id(directory)
    scores = {path: float(found[1]) for found, path in named if found and of_runs[path] == run_id}
    if others := [path.name for path in of_runs if path not in scores]:
        log.warning("left out, because another run wrote them: %s", ", ".join(sorted(others)))
    if not scores and (directory / LAST_CHECKPOINT).is_file():
        scores = _scores_of_callbacks(directory)
    if not 1 <= count <= len(scores):
        raise InputError(
            f"ensemble.best={count}: {len(scores)} checkpoints with a score are in {directory} "
            "(best_epoch_07_score_0.3312.ckpt is the score 0.3312 after epoch 7)"
        )
    return sorted(scores, key=lambda path: (-scores[path], path.name))[:count]


def _newest_run_id(directory: Path) -> str:
    """Return the id of the run that a folder is of: that of its last, or newest, checkpoint."""
    files = [path for path in directory.glob("*.ckpt") if path.is_file()]
    files.sort(key=lambda path: (path.name == LAST_CHECKPOINT, path.stat().st_mtime), reverse=True)
    return next(filter(None, map(read_run_id, files)), "")


def _scores_of_callbacks(directory: Path) -> dict[Path, float]:
    """A run may have been moved, so files are looked for by name in its folder."""
    scores: dict[Path, float] = {}
    run_id = read_run_id(directory / LAST_CHECKPOINT)
    for state in load_checkpoint(directory / LAST_CHECKPOINT).callbacks.values():
        if isinstance(state, Mapping) and state.get("monitor") == "validation/competition_map":
            best = state.get("best_k_models")
            for name, score in best.items() if isinstance(best, Mapping) else ():
                path = directory / Path(str(name)).name
                if not path.is_file() or read_run_id(path) != run_id:
                    continue
                if isinstance(score, SCORE_TYPES):
                    scores[path] = float(score)
    return scores


def load_members(
    paths: Sequence[Path],
    *,
    detector: Mapping[str, Any],
    num_classes: int,
    category_ids: Sequence[int] | None,
    own_inference: bool = False,
) -> list[Detector]:
    """Build the detector of each checkpoint and load its weights.

    A checkpoint of Lightning's carries its detector's configuration: models of different backbones
    need no configuration each. From ``detector`` they take what belongs to inference alone, unless
    ``own_inference``.

    Args:
        paths: the checkpoints.
        detector: mmdet's configuration for weights that carry none.
        num_classes: that every checkpoint has to have.
        category_ids: ids of its classes; None: 0, 1, 2, ...
        own_inference: whether a checkpoint's own configuration holds for inference, too.

    Raises:
        InputError: names the checkpoint, and what does not fit, or one that is given twice.
    """
    members: list[Detector] = []
    known: dict[str, Path] = {}
    classes = list(range(num_classes) if category_ids is None else category_ids)
    for path in paths:
        checkpoint = load_checkpoint(path)
        check_finite(checkpoint.weights, path)
        _check_classes(path, checkpoint, classes)
        check_given_once(known, path, checkpoint.weights)
        own = _configuration(path, checkpoint, detector, own_inference=own_inference)
        try:
            member = build_detector(own, init_weights=False)
            check_member(member)
            load_weights(member, checkpoint.weights)
        except InputError as error:
            raise InputError(f"checkpoint {path}: {error}") from error
        members.append(member.eval())
    check_members(members, [f"checkpoint {path}" for path in paths])
    return members


def _configuration(
    path: Path, checkpoint: Checkpoint, detector: Mapping[str, Any], *, own_inference: bool
) -> dict[str, Any]:
    own = checkpoint.hyper_parameters.get("detector")
    if own is None:
        return dict(detector)
    check_untrusted_detector(own, source=f"checkpoint {path}", key="hyper_parameters.detector")
    if own_inference:
        return dict(own)
    used = {**own, **{key: detector[key] for key in INFERENCE_KEYS if key in detector}}
    differences = describe_difference(used, dict(detector))
    if differences:
        shown = "; ".join(differences[:DIFFERENCES_SHOWN])
        log.info(
            "%s is built as it was trained, which differs from module.detector: %s%s",
            path,
            shown,
            " ..." if len(differences) > DIFFERENCES_SHOWN else "",
        )
    return used


def _check_classes(path: Path, checkpoint: Checkpoint, wanted: list[int]) -> None:
    """Compare with the classes that Lightning recorded, else with the number that weights show."""
    classes = check_class_list(checkpoint.hyper_parameters, source=f"checkpoint {path}")
    heads = [v for k, v in checkpoint.weights.items() if k.endswith("bbox_head.0.fc_cls.weight")]
    if classes is not None:
        own = list(range(classes[0])) if classes[1] is None else classes[1]
    elif heads:
        own = list(range(len(heads[0]) - 1))  # the last is the background
        if len(own) == len(wanted):
            return
    else:
        return
    if own == wanted:
        return
    if len(own) != len(wanted):
        difference = f"it has {len(own)} classes, module.num_classes is {len(wanted)}"
    else:
        place = next(n for n in range(len(own)) if own[n] != wanted[n])
        difference = (
            f"its class {place} is category {own[place]}, module.category_ids has {wanted[place]}"
        )
    raise InputError(f"checkpoint {path}: another class list: {difference}")
