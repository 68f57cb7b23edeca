"""From a plain configuration to mmdet's detector, with errors for people."""

from __future__ import annotations

import copy
import difflib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mmdet.models  # noqa: F401  fills the registry
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmdet.registry import MODELS, TASK_UTILS
from mmengine import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from omegaconf import OmegaConf

import src.mmdet_bridge.roi_extractor  # noqa: F401  adds ours to it
from src.errors import InputError
from src.io import printable
from src.mmdet_bridge.untrusted_config import find_reader, leaves

SHARED_SIZES_KEY = "sizes"

Detector = Any
"""A detector of mmdet's (a ``torch.nn.Module``); mmdet has no types that a checker could use."""


def build_detector(config: Mapping[str, Any], *, init_weights: bool = True) -> Detector:
    """Build mmdet's detector from its configuration.

    Args:
        config: mmdet's model configuration, plain or an OmegaConf node (attached, so that
            interpolations resolve). Its key ``sizes``, numbers that other values refer to, is no
            part of mmdet's and is left out.
        init_weights: draw the weights as mmdet's classes ask (``init_cfg``). Without it they are
            torch's defaults, which is enough, and faster, where a checkpoint is loaded afterwards.

    Returns:
        The detector in training mode, on the CPU.

    Raises:
        InputError: a type that mmdet's registry lacks, a key that its class does not take, a
            missing one, or a key that fetches or reads a file (``pretrained``, ``checkpoint``).
    """
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    model = copy.deepcopy(dict(plain))  # type: ignore[arg-type]
    model.pop(SHARED_SIZES_KEY, None)
    _refuse_readers(model)
    # Parts of mmengine look types up in the process's default scope, which may be another's.
    with DefaultScope.overwrite_default_scope("mmdet"):
        try:
            detector = MODELS.build(ConfigDict(model))
        except Exception as error:  # mmdet's constructors complain in every way
            raise _explained(error, model) from error
        if init_weights:
            with _only_warnings():
                detector.init_weights()
            # mmdet draws the offsets like any convolution; they start at zero (Dai et al., 2017).
            for layer in detector.modules():
                if isinstance(layer, DeformConv2dPack | ModulatedDeformConv2dPack):
                    layer.init_offset()
    # `norm_eval` acts when the mode is set, and Lightning leaves the mode as it finds it.
    return detector.train()


@contextmanager
def _only_warnings() -> Iterator[None]:
    """mmengine prints a line for each parameter that it initialises."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _refuse_readers(model: Mapping[str, Any]) -> None:
    """Refuse what makes mmdet fetch or read a file, which would be unpickled."""
    if found := find_reader(model):
        raise InputError(
            f"{_dotted(found[0])} must be absent or null, got {printable(found[1])!r}: models read "
            "and download no files; fetch the weights yourself, then: python -m src.import_weights "
            "source=FILE output=start.safetensors, and train with initial_weights=start.safetensors"
        )


def _explained(error: Exception, model: Mapping[str, Any]) -> InputError:
    """Say which key of the configuration mmdet's complaint is about."""
    text = str(error.args[0]) if error.args else str(error)
    if unknown := re.match(r"(\w+) is not in the", text):
        name = unknown[1]
        keys = [_dotted(path) for path, value in leaves(model) if value == name]
        known = sorted({*MODELS.module_dict, *TASK_UTILS.module_dict})
        near = difflib.get_close_matches(name, known, n=3)
        hint = f" Near it: {', '.join(near)}." if near else ""
        return InputError(
            f"{_named(keys)}: mmdet has no class '{name}'; legal are its registry's names.{hint}"
        )
    if unexpected := re.search(
        r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", text
    ):
        name = unexpected[2]
        keys = [_dotted(path) for path in _branches(model) if path[-1] == name]
        return InputError(f"{_named(keys)}: mmdet's {unexpected[1]} takes no argument '{name}'")
    return InputError(f"detector: mmdet cannot build this configuration: {text}")


def _branches(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys that lead to every value and every inner node of a nested configuration."""
    if path:
        yield path
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _branches(value, (*path, str(key)))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _branches(value, (*path, str(number)))


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(("detector", *path))


def _named(keys: list[str]) -> str:
    return " and ".join(keys) if keys else "detector"
