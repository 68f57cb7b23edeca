"""The lab's web server: the page, its files, and the answers that it asks for."""

from __future__ import annotations

import json
import logging
import math
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

from src.errors import InputError, describe_disk_error, find_disk_error
from src.io import printable
from src.lab.evaluation import Evaluation
from src.lab.guard import HEADERS, Guard, LabRequest
from src.lab.image_view import ImageViews
from src.lab.outputs import (
    MAX_STATE_BYTES,
    describe_command,
    load_state,
    make_submission,
    save_state,
    write_settings,
)
from src.lab.photos import Photos
from src.lab.requests import Channels, DroppedError, parse_body, take
from src.lab.warming import Warmer
from src.lab.workspace import Workspace

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_TIMEOUT_S = 30  # of a connection that sends nothing
_IMAGE_CACHE = "private, max-age=3600"
Answer = Response | Mapping[str, Any]


class LabApp:
    """The WSGI application.

    Args:
        workspace: The opened inputs.
        guard: Checks of each request.
    """

    def __init__(self, workspace: Workspace, guard: Guard) -> None:
        self._workspace, self._guard = workspace, guard
        self._urgent = _Urgent()
        self.evaluation = Evaluation(workspace, pause=self._urgent.wait)
        self._views, self._photos = ImageViews(workspace), Photos(workspace)
        self._warmer = Warmer(self.evaluation)
        self._warmer.prepare(workspace.start)  # while the browser opens
        self._channels = Channels()
        self._state_lock = threading.Lock()
        environment = Environment(
            loader=PackageLoader("src.lab"), autoescape=True, undefined=StrictUndefined
        )
        self._page = environment.get_template("lab.html")
        self._get: dict[str, Callable[[LabRequest], Answer]] = {
            "/": self._show_page,
            "/api/lab": self._describe,
            "/api/photo": self._photo,
            "/api/thumbnail": self._photo,
        }
        self._post: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "/api/score": self._score,
            "/api/interval": self._interval,
            "/api/errors": self._errors,
            "/api/coco": self._coco,
            "/api/image": self._image,
            "/api/grid": self._grid,
            "/api/write_settings": self._write_settings,
            "/api/command": self._command,
            "/api/submission": self._submission,
            "/api/session": self._session,
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer a request, as WSGI has it."""
        response = self._respond(LabRequest(environ))
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response(environ, start_response)

    def close(self) -> None:
        """End the work ahead, which reads the store: before the store is closed."""
        self._warmer.close()

    def _respond(self, request: LabRequest) -> Response:
        try:
            if (problem := self._guard.problem(request)) is not None:
                return _error(403, problem)
            return _as_response(self._route(request))
        except DroppedError:
            return _json({"dropped": True, "error": "a newer request has arrived"}, 409)
        except RequestEntityTooLarge:
            return _error(413, "the body must have at most 1 MB")
        except InputError as error:
            return _error(400, str(error))
        except HTTPException as error:
            return _error(error.code or 400, error.description or error.name)
        except OSError as error:
            found = find_disk_error(error)
            described = None if found is None else describe_disk_error(found)
            if described is None:
                log.exception("%s failed", printable(request.path))
            return _error(400 if described else 500, described or "the lab failed; see its log")
        except Exception:
            log.exception("%s failed", printable(request.path))
            return _error(500, "the lab failed; see its log")

    def _route(self, request: LabRequest) -> Answer:
        path, method = request.path, request.method
        if path in self._get and method in ("GET", "HEAD"):
            return self._get[path](request)
        if path in self._post and method == "POST":
            return self._post[path](parse_body(request.get_data(cache=False)))
        if path.startswith("/static/") and method in ("GET", "HEAD"):
            return _static_file(path.removeprefix("/static/"))
        if path in self._get or path in self._post:
            return _error(405, f"{path} must be asked by {'GET' if path in self._get else 'POST'}")
        return _error(404, "no such page")

    def _show_page(self, request: LabRequest) -> Response:
        if self._guard.token is not None and "token" in request.args:
            response = Response(status=303, headers={"Location": "/"})
            response.set_cookie(
                self._guard.cookie, self._guard.token, httponly=True, samesite="Strict"
            )
            return response
        html = self._page.render(predictions=printable(self._workspace.inputs.predictions))
        return Response(html, content_type="text/html; charset=utf-8")

    def _describe(self, _: LabRequest) -> Answer:
        with self._urgent:
            return self._workspace.describe(load_state(self._workspace.options.session_file))

    def _photo(self, request: LabRequest) -> Response:
        index = self._index(_whole(request.args.get("index"), "index"))
        edge_px = {}
        if request.path == "/api/thumbnail":
            edge_px = {"edge_px": _whole(request.args.get("edge", "256"), "edge")}
            if not 16 <= edge_px["edge_px"] <= 1024:
                raise InputError(f"edge must be from 16 to 1024, got {edge_px['edge_px']}")
        content = self._photos.jpeg(index, **edge_px)
        if content is None:
            return _error(404, "there is no file of this image")
        return Response(content, content_type="image/jpeg", headers={"Cache-Control": _IMAGE_CACHE})

    def _score(self, body: dict[str, Any]) -> Answer:
        check = self._channels.enter(body, "score").check
        settings = self._workspace.settings(body.get("settings"))
        baseline = self._workspace.settings(body.get("baseline"), key="baseline")
        known = body.get("known_baseline")
        self._warmer.prepare(settings)  # and with others no longer
        return self.evaluation.score(settings, baseline, known_baseline=known, check=check)

    def _interval(self, body: dict[str, Any]) -> Answer:
        check = self._channels.enter(body, "interval").check
        settings = self._workspace.settings(body.get("settings"))
        baseline = self._workspace.settings(body.get("baseline"), key="baseline")
        return self.evaluation.interval(settings, baseline, check)

    def _errors(self, body: dict[str, Any]) -> Answer:
        check = self._channels.enter(body, "errors").check
        return self.evaluation.errors(self._workspace.settings(body.get("settings")), check)

    def _coco(self, body: dict[str, Any]) -> Answer:
        check = self._channels.enter(body, "coco").check
        return self.evaluation.coco(self._workspace.settings(body.get("settings")), check)

    def _image(self, body: dict[str, Any]) -> Answer:
        check = self._channels.enter(body, "image").check
        settings = self._workspace.settings(body.get("settings"))
        index = self._index(take(body, "index", int, legal="the index of an image"))
        with self._urgent:
            check()
            return self._views.view(settings, index, ghosts=body.get("ghosts") is True)

    def _grid(self, body: dict[str, Any]) -> Answer:
        check = self._channels.enter(body, "grid").check
        settings = self._workspace.settings(body.get("settings"))
        x, y = (take(body, axis, dict, legal="an object") for axis in ("x", "y"))
        values = take(x, "values", list, legal="a list")
        keys = [take(axis, "key", str, legal="a key of postprocess") for axis in (x, y)]
        axes = {"x": (keys[0], values), "y": (keys[1], [y.get("value")])}
        return self.evaluation.grid(settings, axes, self._workspace.settings, check)

    def _write_settings(self, body: dict[str, Any]) -> Answer:
        settings = self._workspace.settings(body.get("settings"))
        name = take(body, "name", str, legal="the name of an option")
        score = self.evaluation.known_score(settings)
        path = write_settings(self._workspace, name, settings, score)
        return {"path": str(path), "command": self._workspace.options.command(name, {})}

    def _command(self, body: dict[str, Any]) -> Answer:
        settings = self._workspace.settings(body.get("settings"))
        return {"command": describe_command(self._workspace, settings)}

    def _submission(self, body: dict[str, Any]) -> Answer:
        settings = self._workspace.settings(body.get("settings"))
        with self.evaluation.at_work():
            name, content, verdict = make_submission(self._workspace, settings)
        kind = "application/json" if name.endswith(".json") else "text/csv; charset=utf-8"
        disposition = f'attachment; filename="{name}"'
        headers = {"Content-Disposition": disposition, "X-Lab-Validation": verdict}
        return Response(content, content_type=kind, headers=headers)

    def _session(self, body: dict[str, Any]) -> Answer:
        state = take(body, "state", dict, legal="an object")
        if len(json.dumps(state)) > MAX_STATE_BYTES:
            raise InputError(f"state must have at most {MAX_STATE_BYTES} bytes")
        with self._state_lock:
            return {"saved": save_state(self._workspace.options.session_file, state)}

    def _index(self, index: int) -> int:
        if not 0 <= index < len(self._workspace.image_ids):
            count = len(self._workspace.image_ids)
            raise InputError(f"index must be from 0 to {count - 1}, got {index}")
        return index


class _Urgent:
    """Lets a long evaluation wait, between two images, for a short request: a ``with`` block."""

    def __init__(self) -> None:
        self._count, self._changed = 0, threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until no short request is at work."""
        if self._count:
            with self._changed:
                self._changed.wait_for(lambda: not self._count, timeout=5)


def _whole(text: str | None, key: str) -> int:
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise InputError(f"{key} must be a whole number, got {printable(repr(text), limit=40)}")
    return int(text)


def _static_file(name: str) -> Response:
    """Return a file of the package; the name is compared with theirs and is never a path."""
    known = {path.name: path for path in STATIC.iterdir() if path.suffix in _TYPES}
    if name not in known:
        return _error(404, "no such file")
    path = known[name]
    return Response(path.read_bytes(), content_type=_TYPES[path.suffix])


def _as_response(answer: Answer) -> Response:
    return answer if isinstance(answer, Response) else _json(answer, 200)


def _error(status: int, message: str) -> Response:
    return _json({"error": printable(message, limit=2000)}, status)


def _json(content: Mapping[str, Any], status: int) -> Response:
    try:
        text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    except ValueError:  # a number that is not finite
        text = json.dumps(_without_nan(content), allow_nan=False, separators=(",", ":"))
    return Response(text, status=status, content_type="application/json")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    return [_without_nan(one) for one in value] if isinstance(value, list | tuple) else value


class _Handler(WSGIRequestHandler):
    """Says nothing of itself, and writes no line for each request."""

    timeout = _TIMEOUT_S
    server_version, sys_version = "lab", ""

    def version_string(self) -> str:
        return self.server_version

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: ARG002
        log.debug("%s", printable(message % args if args else message))


def open_server(host: str, port: int, app: Any) -> BaseWSGIServer:
    """Return a server that listens already; 0 is a free port.

    Raises:
        InputError: The address cannot be listened on.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(address[:2], family=family) as listening:
            return make_server(
                str(address[0]),
                port,
                app,
                threaded=True,
                request_handler=_Handler,
                fd=listening.fileno(),
            )
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"host and port must be an address to listen on, got {printable(host)}:{port} "
            f"({reason}); port=0 takes a free one"
        ) from None
