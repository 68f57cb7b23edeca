"""Download a file over HTTP: resumed where it stopped, checked by the SHA-256 in its name.

Model zoos end a file's name in the first digits of its SHA-256: ``htc_...-73bebe22.pth``. Only http
and https are spoken, and a redirection cannot leave https.
"""

from __future__ import annotations

import fcntl
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

from src.console import progress_bar, say
from src.errors import InputError
from src.io import file_sha256, make_directory, printable

SCHEMES = ("http", "https")
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
TIMEOUT_S = 30.0  # without a byte
CHUNK_BYTES = 1 << 20
MAX_BYTES = 16 * 2**30  # the largest of mmdet's index has 1.2 GB
MAX_NAME = 200  # characters of a file's name
PARTIAL_SUFFIX = ".part"


def is_address(source: str) -> bool:
    """Return whether a source is an address, of any scheme, and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def download(address: str, directory: Path) -> Path:
    """Return the file of an address in a directory, downloaded if it is not there yet.

    Args:
        address: http or https.
        directory: Cache, made where it is missing. An unfinished file stays beside the others, and
            the next call resumes it.

    Raises:
        InputError: The address cannot be read, or the file is not what its name says; one line.
    """
    path = directory / _file_name(address)
    expected = HASH_IN_NAME.search(path.name)
    if path.exists():
        if expected is None or file_sha256(path).startswith(expected[1]):
            return path
        path.unlink()
        say(f"{path}: its SHA-256 is not that in its name; it is removed and downloaded again")
    make_directory(directory)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with _locked(partial) as file:
        say(f"downloading {address} to {path}")
        _fetch(address, file)
        file.flush()
        digest = file_sha256(partial)
        if expected is None:
            say(f"{path}: SHA-256 {digest}; its name holds none to compare it with")
        elif not digest.startswith(expected[1]):
            partial.unlink()
            raise InputError(
                f"the file of {printable(address)} must have a SHA-256 that begins with "
                f"{expected[1]}, as its name says, got {digest}; it is removed: the same command "
                "downloads it anew"
            )
        partial.replace(path)
    return path


def _file_name(address: str) -> str:
    """Return the name of an address's file.

    Raises:
        InputError: No http, or no file's name in it.
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme.lower() not in SCHEMES:
        raise InputError(
            "source must be a file, a name, or an address of http or https, got "
            f"{printable(address)}"
        )
    name = re.sub(r"[^\w.+-]", "_", Path(unquote(parts.path)).name, flags=re.ASCII).lstrip(".")
    if not name:
        raise InputError(f"source must name a file in its address, got {printable(address)}")
    return name[-MAX_NAME:]


@contextmanager
def _locked(partial: Path) -> Iterator[IO[bytes]]:
    """Open an unfinished file that no other process writes."""
    with partial.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{partial} is being downloaded by another process") from error
        except OSError:
            pass  # a file system without locks
        try:
            yield file
        finally:
            with suppress(OSError):
                if partial.stat().st_size == 0:
                    partial.unlink()


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follow to http and https alone, and not out of https."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Return the request that follows a redirection."""
        scheme = urlsplit(newurl).scheme.lower()
        if scheme not in SCHEMES or (urlsplit(req.full_url).scheme == "https" != scheme):
            raise InputError(
                f"{printable(req.full_url)} must not lead out of https, got a redirection to "
                f"{printable(newurl)}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener without urllib's readers of files, FTP and data addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirections(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _fetch(address: str, file: IO[bytes]) -> None:
    """Append what is missing of an address's content to a file.

    Raises:
        InputError: The server cannot be reached, refuses, or ends before the end.
    """
    have = file.seek(0, 2)
    try:
        response = _open(address, have)
        if response is None:  # the server has no such part: the file is another, or whole
            file.truncate(0)
            have = 0
            response = _open(address, have)
            assert response is not None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(_explain(address, error)) from error
    with response:
        if response.status != 206:
            file.truncate(0)
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None and length.isdecimal() else None
        _copy(response, file, address=address, have=have, total=total)


def _open(address: str, have: int) -> Any:
    """Open an address from a byte on; None where the server refuses that part of it."""
    headers = {"User-Agent": "instance-cascade", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = _opener().open(
            urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            error.close()
            return None
        raise
    if response.status == 206:
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if start is None or int(start[1]) != have:
            response.close()
            return None
    return response


def _copy(response: Any, file: IO[bytes], *, address: str, have: int, total: int | None) -> None:
    columns = (TextColumn("downloading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with progress_bar(*columns) as progress:
        task = progress.add_task("", completed=have, total=total)
        while True:
            try:
                chunk = response.read(CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                file.flush()
                raise InputError(
                    f"{_explain(address, error)} after {have} bytes; the same command resumes it"
                ) from error
            if not chunk:
                break
            have += len(chunk)
            if have > MAX_BYTES:
                raise InputError(
                    f"{printable(address)} must have at most {MAX_BYTES} bytes, got more"
                )
            file.write(chunk)
            progress.update(task, completed=have)
    if total is not None and have < total:
        file.flush()
        raise InputError(
            f"{printable(address)} ended after {have} of {total} bytes; the same command resumes it"
        )


def _explain(address: str, error: Exception) -> str:
    """Return one line for what went wrong with an address."""
    if isinstance(error, urllib.error.HTTPError):
        reason = f"the server says {error.code} {error.reason}"
    elif isinstance(error, urllib.error.URLError):
        reason = str(error.reason)
    else:
        reason = str(error) or type(error).__name__
    return f"{printable(address)} cannot be downloaded: {printable(reason)}"
