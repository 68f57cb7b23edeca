"""Make a bundle for a competition without internet: ``python -m src.bundle output=DIR``.

Torch, Lightning and mmdet are imported in the functions that need them; see ``src.train``.
"""

from __future__ import annotations

import logging
import platform
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src.cli.entry_point import entry_point, to_plain
from src.cli.locks import writing
from src.cli.run_checks import check_precision, late_fusion_of, view_changes_of
from src.commit import read_commit
from src.errors import InputError
from src.io import (
    check_writable,
    make_directory,
    partial_path,
    user_cache_directory,
    working_directory,
)
from src.mmdet_bridge.checkpoints.files import WEIGHTS_SUFFIX, checkpoint_paths
from src.tuning.sweeps import is_sweep
from src.validation import Flag, check_value, shown

log = logging.getLogger(__name__)

OWN_KEYS = ("output", "leave_out", "python_version", "platform", "wheels", "notebook")
# Keys of prediction that the notebook gives.
PLACES = ("images", "image", "annotations", "predictions", "predict_split")
# ... and those that are written into the bundle.
WRITTEN = ("checkpoint", "postprocess", "competition")
HERE = (*OWN_KEYS, *PLACES, "checkpoint", "paths")  # say nothing elsewhere
ALL = "all"
ADDED_REQUIREMENTS = {"mmpretrain": "mmpretrain.txt"}  # import name: file of what it needs


def replayed(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a command line that are those of prediction in the bundle.

    Raises:
        InputError: One of them says where images or results lie here.
    """
    kept = []
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        first = key.partition(".")[0].partition("@")[0]
        if first in PLACES:
            raise InputError(
                f"{key} must not be given, for the bundle predicts elsewhere: submit.py and the "
                f"notebook say where (notebook.images, notebook.sample_submission), got {override}"
            )
        of_checkpoints = key in ("ensemble", "ensemble.num_best", "ensemble.checkpoint_dir")
        if first not in (*OWN_KEYS, *WRITTEN) and not of_checkpoints:
            kept.append(override)
    return kept


def check_config(config: DictConfig) -> dict[str, dict[str, Any]]:
    """Check the values before anything is read, and return those of the written groups."""
    from src.annotations.competition import Competition
    from src.postprocess.settings import plain_settings

    if is_sweep():
        raise InputError("a bundle is one folder; -m is not for it")
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra and any(source.provider == "command-line" for source in hydra.runtime.config_sources):
        raise InputError("--config-dir is not for a bundle: put its files into conf/")
    check_precision(config.trainer)
    view_changes_of(config)
    late_fusion_of(config)
    check_value("notebook.partial", config.notebook.partial, Flag)
    groups = {name: to_plain(config[name]) for name in ("postprocess", "competition")}
    plain_settings(groups["postprocess"])
    Competition.from_config(groups["competition"])
    return groups


def target_of(config: DictConfig) -> Any:
    """Return the target that the command line asks for."""
    from src.bundling.requirements import GLIBC, Target

    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Target(
        python=own if config.python_version is None else str(config.python_version),
        platform=config.platform or f"manylinux_{GLIBC}_{platform.machine()}",
    )


def left_out(config: DictConfig) -> list[str] | None:
    """Return the names of ``leave_out``; None for all packages."""
    names = to_plain(config.leave_out)
    if names in (ALL, [ALL]):
        return None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"leave_out must be a list of packages, or all, got {shown(names)}")
    return names


def write_weights(paths: Sequence[Path], directory: Path) -> list[Path]:
    """Write the weights of each checkpoint, and its notes on model, classes and sizes.

    Nothing else of a checkpoint, such as the state of its optimizer, is written.
    """
    from src.io import file_sha256
    from src.mmdet_bridge.checkpoints.reading import (
        carried_notes,
        check_finite,
        load_checkpoint,
        save_weights,
    )
    from src.mmdet_bridge.checkpoints.weight_files import detector_names

    written = []
    for number, path in enumerate(paths):
        checkpoint = load_checkpoint(path)
        check_finite(checkpoint.weights, path)
        target = directory / f"{number}{WEIGHTS_SUFFIX}"
        source = {"source": path.name, "source_sha256": file_sha256(path)}
        save_weights(
            detector_names(checkpoint.weights), target, notes=source | carried_notes(checkpoint)
        )
        written.append(target)
    return written


def check_models(config: DictConfig, paths: Sequence[Path]) -> list[str]:
    """Build the models of the bundle's weights, and return the files of requirements they add.

    Raises:
        InputError: Weights do not fit, contradict one another, or classes lack what the settings
            name.
    """
    from src.cli.carried_config import take_from_checkpoints
    from src.cli.prediction import build_ensemble
    from src.postprocess.category_names import names_of_classes
    from src.postprocess.settings import named_settings

    carried = take_from_checkpoints(config, paths)
    build_ensemble(
        config,
        paths,
        carried=carried,
        view_changes=view_changes_of(config),
        late_fusion=late_fusion_of(config),
    )
    names = names_of_classes(carried.classes, "the checkpoints")
    named_settings(to_plain(config.postprocess), names)
    return [file for name, file in ADDED_REQUIREMENTS.items() if name in sys.modules]


def write_wheels(config: DictConfig, directory: Path, added: Sequence[str]) -> int:
    """Write the wheels and their list; return how many they are."""
    from rich.progress import BarColumn, TextColumn

    from src.bundling.folder import ROOT
    from src.bundling.requirements import BUILD_TOOLS, needed_pins, read_all_pins
    from src.bundling.wheels import collect_wheels, requirement_lines
    from src.console import progress_bar
    from src.io import write_text

    names, target = left_out(config), target_of(config)
    if names is None:
        write_text(directory / "requirements.txt", "# nothing is installed\n")
        return 0
    files = [ROOT / "requirements" / name for name in ("requirements.txt", *added)]
    pins = read_all_pins(files, target)
    needed = needed_pins(pins, leave_out=names)
    cache = Path(config.wheels) if config.wheels else user_cache_directory() / "wheels"
    columns = (BarColumn(), TextColumn("{task.completed}/{task.total} packages {task.description}"))
    with progress_bar(*columns) as progress:
        task = progress.add_task("", total=len(needed))
        wheels = collect_wheels(
            needed,
            target,
            tools=[pins[name] for name in BUILD_TOOLS],
            cache=cache,
            directory=directory / "wheels",
            track=lambda done, what: progress.update(task, completed=done, description=what),
        )
    write_text(directory / "requirements.txt", requirement_lines(wheels))
    return len(wheels)


def check_packages(config: DictConfig) -> None:
    """Check what is installed, before the work: the target, and the names of ``leave_out``."""
    from src.bundling.folder import ROOT
    from src.bundling.requirements import needed_pins, read_all_pins

    target = target_of(config)
    if (names := left_out(config)) is not None:
        pins = read_all_pins([ROOT / "requirements" / "requirements.txt"], target)
        needed_pins(pins, leave_out=names)


def fill(config: DictConfig, directory: Path, paths: Sequence[Path]) -> dict[str, Any]:
    """Write everything into the bundle's folder, and return its manifest."""
    from src.bundling.folder import ROOT, write_code, write_group, write_manifest, write_notebook
    from src.io import write_text

    groups = check_config(config)
    overrides = replayed(HydraConfig.get().overrides.task if HydraConfig.initialized() else [])
    shown_config = OmegaConf.to_yaml({key: config[key] for key in config if key not in HERE})
    weights = write_weights(paths, directory / "weights")
    try:
        added = check_models(config, weights)
    except InputError as error:  # in the words of whoever gave the checkpoints
        text = str(error)
        for written, source in zip(weights, paths, strict=True):
            text = text.replace(str(written), str(source))
        raise InputError(text) from error
    log.info("wrote the weights: %s", ", ".join(map(str, paths)))
    write_code(directory / "code")
    for name, values in groups.items():
        write_group(directory / "code", name, values)
    write_text(directory / "config.yaml", shown_config)
    packages = write_wheels(config, directory, added)
    names, target = left_out(config), target_of(config)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    model_weights = to_plain(config.ensemble.model_weights)
    shares = "null" if model_weights is None else f"[{','.join(map(str, model_weights))}]"
    manifest = write_manifest(
        directory,
        {
            "version": project["version"],
            **read_commit(ROOT),
            "python": target.python,
            "machine": target.machine,
            "leave_out": ALL if names is None else names,
            "packages": packages,
            "weights": [path.relative_to(directory).as_posix() for path in weights],
            "num_weights": len(weights),
            "submission": config.competition.file,
            "predict": [*overrides, "ensemble.num_best=null", f"ensemble.model_weights={shares}"],
        },
    )
    notebook = to_plain(config.notebook)
    if notebook["bundle_dir"] is None:
        notebook["bundle_dir"] = f"/kaggle/input/{Path(config.output).resolve().name}"
    write_notebook(directory, notebook, manifest=manifest)
    return manifest


def bundle(config: DictConfig) -> None:
    """Make the bundle beside its place, and put it there when it is whole."""
    from src.bundling.folder import check_output, shown_sizes

    output = Path(config.output)
    check_config(config)
    check_output(output)
    check_writable(output.parent / f".{output.name}.probe")
    check_packages(config)
    paths = checkpoint_paths(
        to_plain(config.checkpoint),
        best=config.ensemble.num_best,
        directory=Path(config.ensemble.checkpoint_dir),
    )
    with working_directory(next_to=output) as work:
        new = work / "bundle"
        make_directory(new)
        manifest = fill(config, new, paths)
        old = partial_path(output, unique=True)
        if output.exists():
            output.replace(old)
        new.replace(output)
        if old.exists():
            old.rename(work / "old")  # removed with it
    counts = f"{len(paths)} checkpoint{'s' * (len(paths) > 1)}, {manifest['packages']} packages"
    print(
        f"{output}: {counts}, "
        f"{shown_sizes(manifest)}\n"
        f"notebook: {output / 'submit.ipynb'}\n"
        f"or: python {output / 'submit.py'} images=DIR sample_submission=FILE output=submission.csv"
    )


main = entry_point("bundle", lock=lambda config: writing(config.output, key="output"))(bundle)

if __name__ == "__main__":
    main()
