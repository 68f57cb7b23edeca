"""What leaves the page: settings as a YAML file, a checked submission, and the saved state."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.errors import InputError
from src.io import check_seal, read_json_object, seal, temporary_directory, write_json
from src.lab.workspace import Workspace
from src.postprocess.settings import PostprocessSettings
from src.tuning.search_results import LAB_HEADER, option_path, write_option
from src.tuning.session import submit

log = logging.getLogger(__name__)

MAX_STATE_BYTES = 256 << 10


def write_settings(
    workspace: Workspace, name: str, settings: PostprocessSettings, score: float | None
) -> Path:
    """Write settings as an option of the group ``postprocess``, and return its path.

    Args:
        workspace: The opened inputs, which the file names.
        name: The option's.
        settings: Thresholds and rules.
        score: On these images, for the comment; None: not known.

    Raises:
        InputError: The name is not legal, or a file of this name was not written by the lab.
    """
    path = option_path(workspace.options.config_directory, name, header=LAB_HEADER)
    inputs = workspace.inputs
    origin = [f"predictions {inputs.predictions}, ground truth {inputs.annotations}"]
    if score is not None:
        origin.append(
            f"In-sample: chosen by hand on the images that give the score {score:.4f} "
            f"({workspace.options.averaging}); on new images expect less."
        )
    write_option(path, settings, origin, header=LAB_HEADER)
    return path


def describe_command(workspace: Workspace, settings: PostprocessSettings) -> str:
    """Return the command that post-processes with these settings: an option, and other values."""
    values = settings.to_dict()

    def others(preset: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if preset[key] != value}

    changes = {preset.name: others(preset.settings.to_dict()) for preset in workspace.presets}
    name = min(changes, key=lambda name: len(changes[name]))
    return workspace.options.command(name, changes[name])


def make_submission(workspace: Workspace, settings: PostprocessSettings) -> tuple[str, bytes, str]:
    """Return the name, the bytes and the verdict of the submission of these settings.

    Raises:
        InputError: It breaks a rule of the competition; names the first.
    """
    is_coco = workspace.session.competition.file == "coco_results"
    name = "results.json" if is_coco else "submission.csv"
    with temporary_directory("lab") as folder:
        submitted = submit(
            folder / name,
            workspace.session,
            settings,
            averaging=workspace.options.averaging,
            track=lambda images: images,
        )
        content = (folder / name).read_bytes()
    if submitted.validation is None:
        return name, content, "not checked: the data is not the competition's"
    violations = submitted.validation.violations
    if violations:
        more = f" ({len(violations)} problems in all)" if len(violations) > 1 else ""
        raise InputError(f"the submission breaks a rule of the competition: {violations[0]}{more}")
    return name, content, "ok"


def save_state(path: Path | None, state: Mapping[str, Any]) -> bool:
    """Write the state of the page, atomically; return whether there is a place for it."""
    if path is None:
        return False
    write_json(path, seal({"state": dict(state)}), indent=None)
    return True


def load_state(path: Path | None) -> dict[str, Any] | None:
    """Read the state that the page saved last; None where there is none, or it is damaged."""
    if path is None or not path.exists():
        return None
    try:
        state = check_seal(read_json_object(path), path).get("state")
    except InputError as error:
        log.warning("the saved session is left out: %s", error)
        return None
    return state if isinstance(state, dict) else None
