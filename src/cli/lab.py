"""The page of the lab: ``python -m src.lab predictions=STORE ground_truth=train.csv``."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import threading
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.cli.entry_point import (
    CONFIG_DIRECTORY,
    entry_point,
    name_of_files,
    overridden_keys,
    to_plain,
)
from src.cli.scores import check_metric, inputs_of
from src.console import progress_bar, say
from src.errors import InputError
from src.io import user_cache_directory
from src.lab.workspace import LabOptions, Workspace
from src.postprocess.mask_source import MASK_KEYS, check_fixed_masks
from src.postprocess.settings import named_settings, plain_settings
from src.quoting import quote, quote_for_shell
from src.tuning.session import open_session
from src.validation import check_values, whole

# Keys of the command line that the command of a submission does not take over.
_OWN_KEYS = {
    *("host", "port", "open_browser", "session_dir", "config_dir", "num_resamples"),
    *("predictions", "annotations", "postprocess"),
}


def session_file(directory: str | None, predictions: str) -> Path:
    """Return the file in which the page of a store saves its state."""
    folder = user_cache_directory() / "lab" if directory is None else Path(directory)
    return folder / f"{name_of_files(predictions)}.json"


def post_processing_command(
    config: DictConfig, overrides: Sequence[str], preset: str, changes: Mapping[str, Any]
) -> str:
    """Return the command that writes the submission of some settings, for a shell.

    Args:
        config: Of the lab.
        overrides: The command line of the lab.
        preset: An option of the group ``postprocess``.
        changes: Values of single keys.
    """
    words = ["python -m src.postprocess", quote("predictions", config.predictions)]
    if config.annotations is not None:
        words.append(quote("annotations", config.annotations))
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key.partition(".")[0] not in _OWN_KEYS:
            words.append(quote_for_shell(override))
    if config.config_dir is not None:
        place = f"file://{Path(config.config_dir).resolve()}"
        words.append(quote("hydra.searchpath", [place]))
    words.append(quote("postprocess", preset))
    words += [
        quote(f"postprocess.{key}", None if value == {} else value)  # Hydra would merge {}
        for key, value in changes.items()
    ]
    return " ".join(words)


def has_browser() -> bool:
    """Return whether a browser with windows can be opened; one in a terminal would take it over."""
    if os.environ.get("BROWSER") or sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open_browser(address: str) -> None:
    try:
        webbrowser.open(address)
    except (webbrowser.Error, OSError) as error:
        logging.getLogger(__name__).warning("no browser opens (%s)", error)


def _options(config: DictConfig) -> LabOptions:
    chosen, overrides = "postprocess", list[str]()
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        chosen, overrides = hydra.runtime.choices["postprocess"], list(hydra.overrides.task)
    directory = CONFIG_DIRECTORY if config.config_dir is None else Path(config.config_dir)
    return LabOptions(
        averaging=config.averaging,
        num_resamples=config.num_resamples,
        confidence=config.confidence,
        seed=config.seed,
        config_directory=directory,
        settings=to_plain(config.postprocess),
        preset=chosen,
        command=lambda name, changes: post_processing_command(config, overrides, name, changes),
        session_file=session_file(config.session_dir, config.predictions),
    )


@entry_point("lab", renamed={"ground_truth": "annotations"})
def main(config: DictConfig) -> None:
    """Open the inputs, and serve the page until Ctrl-C."""
    plain_settings(to_plain(config.postprocess))
    check_metric(config)
    check_values({"port": whole(0, 65535), "open_browser": bool}, config)
    if not isinstance(config.host, str):
        raise InputError(f"host must be an address such as 127.0.0.1, got {config.host!r}")
    if config.images is not None and not Path(config.images).is_dir():
        raise InputError(f"images must be a folder, got {config.images}: no such folder")
    inputs = inputs_of(config)
    with (
        progress_bar() as progress,
        open_session(inputs, remember=True, progress=progress) as session,
    ):
        progress.stop()
        workspace = Workspace(session, inputs, _options(config))
        _ = workspace.start, workspace.presets  # not legal for this data: said before the page
        if {f"postprocess.{key}" for key in MASK_KEYS} & overridden_keys():
            values = named_settings(to_plain(config.postprocess), session.categories)
            check_fixed_masks(values, session.store)
        for note in (*session.notes, *workspace.notes):
            say(f"note: {note}")
        # Imported where it is needed: Werkzeug and Jinja, which --help and mistakes do without.
        from src.lab.guard import Guard, is_loopback
        from src.lab.server import LabApp, open_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        token = None if is_loopback(config.host) else secrets.token_urlsafe(24)
        app = _Later()
        with open_server(config.host, config.port, app) as server:
            guard = Guard(config.host, server.port, token)
            app.app = LabApp(workspace, guard)
            host = f"[{config.host}]" if ":" in config.host else config.host
            address = f"http://{host}:{server.port}/" + (f"?token={token}" if token else "")
            print(f"{address}  (Ctrl-C ends it)", flush=True)
            if config.open_browser and has_browser():
                threading.Thread(target=_open_browser, args=(address,), daemon=True).start()
            try:
                server.serve_forever()  # until Ctrl-C, which it takes for a reason to return
            finally:
                app.app.close()
            raise KeyboardInterrupt


class _Later:
    """A WSGI application that is made once the port is known."""

    app: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        return self.app(environ, start_response)
