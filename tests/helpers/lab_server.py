"""The lab's server on generated data, asked as a page asks it, or as nobody should."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.annotations.competition import Competition
from src.lab.guard import Guard
from src.lab.server import LabApp, open_server
from src.lab.workspace import LabOptions, Workspace
from src.postprocess.settings import PostprocessSettings
from src.tuning.session import Inputs, Session, open_session


def make_workspace(session: Session, inputs: Inputs, folder: Path, **changes: Any) -> Workspace:
    start = PostprocessSettings.preset("winner_all_classes").to_dict()
    values: dict[str, Any] = {
        "averaging": "per_class",
        "num_resamples": 500,
        "confidence": 0.95,
        "seed": 0,
        "config_directory": folder / "conf",
        "settings": start,
        "preset": "winner_all_classes",
        "command": lambda name, changes: f"postprocess={name} {sorted(changes)}",
        "session_file": folder / "session" / "page.json",
    }
    return Workspace(session, inputs, LabOptions(**(values | changes)))


def make_inputs(predictions: Path, annotations: Path | None, **changes: Any) -> Inputs:
    values: dict[str, Any] = {
        "predictions": str(predictions),
        "annotations": None if annotations is None else str(annotations),
        "sample_submission": None,
        "images": None,
        "cache_dir": None,
        "competition": Competition.preset("imaterialist_2019"),
    }
    return Inputs(**(values | changes))


@dataclass
class Page:
    """A page of the lab, for a test."""

    port: int
    workspace: Workspace
    app: LabApp
    sequence: int = 0
    headers: Mapping[str, str] = field(default_factory=lambda: {"X-Lab": "1"})

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str | None] = {}
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request; a header None is left out, and bytes are sent as they are."""
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        known = {"Host": f"127.0.0.1:{self.port}", **self.headers, **headers}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in known.items():
                if value is not None:
                    connection.putheader(name, value)
            if sent is not None and "Content-Length" not in known:
                connection.putheader("Content-Length", str(len(sent)))
            connection.endheaders(sent)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        status, _, content = self.request("GET", path)
        assert status == 200, content
        return json.loads(content)

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        """Ask with a client, a sequence and the settings at the start, unless given."""
        self.sequence += 1
        start = self.workspace.start.to_dict()
        given = {"client": "a1", "sequence": self.sequence, "settings": start, "baseline": start}
        status, _, content = self.request("POST", path, given | body)
        return status, json.loads(content)


@contextlib.contextmanager
def open_page(
    inputs: Inputs, folder: Path, *, token: str | None = None, **changes: Any
) -> Iterator[Page]:
    """Serve the lab in a thread."""
    with open_session(inputs, remember=True) as session:
        workspace = make_workspace(session, inputs, folder, **changes)
        apps: list[Any] = []
        with open_server("127.0.0.1", 0, lambda *given: apps[0](*given)) as server:
            apps.append(LabApp(workspace, Guard("127.0.0.1", server.port, token)))
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield Page(server.port, workspace, apps[0])
            finally:
                server.shutdown()
                thread.join()
                apps[0].close()
