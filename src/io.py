"""File primitives: atomic writes, JSON that may be damaged, and text from a file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from src.errors import InputError, naming_disk_errors
from src.processes import is_process_alive, process_identity

PARTIAL_SUFFIX = ".part"
PARTIAL_EXPIRES_S = 24 * 3600.0
NUM_COMPARED_CHARACTERS = 25
MAX_NAME_BYTES = 255  # of Linux file systems
MAX_JSON_BYTES = 256 * 2**20
MAX_YAML_VALUES = 100_000  # of a file of settings, aliases expanded
MAX_SHOWN_LENGTH = 80  # of a value in a message
PROBE_BYTES = 2**16
SEAL_KEY = "sha256"
_KINDS = {
    **{stat.S_IFDIR: "directory", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"},
    **{stat.S_IFCHR: "device", stat.S_IFBLK: "device"},
}


@contextmanager
def atomic_path(
    path: str | Path, *, sync: bool = False, num_bytes: int | None = None, clean: bool = True
) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name when the block succeeds.

    On an exception the temporary file is removed and ``path`` stays as it was. Temporary files that
    killed processes left for the same ``path`` are removed first.

    Args:
        path: File to write; its directory is created if it is missing.
        sync: Whether to flush the file and its directory to the disk (fsync), so that a power cut
            cannot leave an empty file under the final name.
        num_bytes: Size of the file, if it is known beforehand, for the message of a full disk.
        clean: Whether to remove the temporary files, which lists the directory; for thousands of
            files in one, call ``remove_all_partial_files`` once instead.

    Raises:
        InputError: ``path`` exists and is not a regular file (a directory, a device, a pipe).
        WriteError: The disk is full or read-only, or the directory cannot be written.
    """
    path = Path(path)
    check_output_file(path)
    partial = partial_path(path)
    try:
        with naming_disk_errors(path, partial=partial, num_bytes=num_bytes):
            make_directory(path.parent)
            if clean:
                remove_partial_files(path)
            yield partial
            if sync:
                fsync(partial)
            partial.replace(path)
            if sync:
                fsync(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def working_directory(*, next_to: Path) -> Iterator[Path]:
    """Yield a hidden directory beside ``next_to``, removed with its content.

    Those that killed processes left for the same ``next_to`` are removed first.
    """
    work = partial_path(next_to, unique=True)
    with naming_disk_errors(next_to, partial=work):
        make_directory(next_to.parent)
        remove_partial_files(next_to)
        work.mkdir(mode=0o700)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def temporary_directory(name: str) -> Iterator[Path]:
    """Yield a directory in the folder for temporary files, removed with its content.

    Those that killed processes left under the same name, such as ``submission``, are removed first.
    """
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        text = "No space for temporary files in any of their folders; TMPDIR=FOLDER names another"
        raise OSError(errno.ENOSPC, text) from error
    with working_directory(next_to=folder / f"instance-cascade-{name}") as work:
        yield work


def partial_path(path: Path, *, unique: bool = False) -> Path:
    """Return the name under which this process writes ``path``: ``.NAME.HOST-PID-START.part``.

    The name is cut to the 255 bytes that a file system takes.

    Args:
        path: The file to write.
        unique: Whether each call gives another name, with random letters in it.
    """
    owner = ".{host}-{pid}-{start}".format(**process_identity())
    if unique:
        owner = f".{secrets.token_hex(4)}{owner}"
    room = MAX_NAME_BYTES - len(f".{owner}{PARTIAL_SUFFIX}".encode())
    stem = path.name.encode(errors="surrogateescape")[:room].decode(errors="ignore")
    return path.with_name(f".{stem}{owner}{PARTIAL_SUFFIX}")


def fitting_name(stem: str, suffix: str) -> str:
    """Return ``stem + suffix``; a hash replaces the end of a stem too long for a file name."""
    name = stem + suffix
    if len(os.fsencode(name)) <= MAX_NAME_BYTES:
        return name
    digest = f"-{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}"
    room = MAX_NAME_BYTES - len(os.fsencode(digest + suffix))
    return os.fsencode(stem)[:room].decode(errors="ignore") + digest + suffix


def remove_partial_files(path: Path) -> None:
    """Remove temporary files and directories that killed processes left of ``path``.

    One is removed if its process has ended on this host or, for other hosts, if nothing was written
    to it for a day.
    """
    # The end of a long name may be missing in the name of the file.
    remove_all_partial_files(path.parent, start="." + path.name[:NUM_COMPARED_CHARACTERS])


def remove_all_partial_files(directory: Path, *, start: str = ".") -> None:
    """Remove temporary files of killed processes in a directory; see ``remove_partial_files``."""
    pattern = re.compile(r"\..*\.(?P<host>\w+)-(?P<pid>\d+)-(?P<start>\d+)\.part")
    try:
        with os.scandir(directory) as entries:  # quicker than iterdir: of /tmp, at every score
            names = [entry.name for entry in entries if entry.name.startswith(start)]
    except OSError:
        return
    for name in names:
        if not (found := pattern.fullmatch(name)):
            continue
        left = directory / name
        with suppress(OSError):
            owner = {**found.groupdict(), "pid": int(found["pid"]), "start": int(found["start"])}
            status = left.lstat()
            expired = time.time() - status.st_mtime > PARTIAL_EXPIRES_S
            if not expired and is_process_alive(owner) is not False:
                continue
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def write_json(
    path: str | Path,
    content: Any,
    *,
    indent: int | None = 2,
    sort_keys: bool = True,
    sync: bool = False,
) -> None:
    """Write ``content`` as JSON, atomically; ``sync`` as in ``atomic_path``."""
    text = json.dumps(content, indent=indent, sort_keys=sort_keys, ensure_ascii=False) + "\n"
    try:
        encoded = text.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8
        encoded = json.dumps(content, indent=indent, sort_keys=sort_keys).encode() + b"\n"
    write_bytes(path, encoded, sync=sync)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes, *, sync: bool = False) -> None:
    """Write ``content``, atomically; ``sync`` as in ``atomic_path``."""
    with atomic_path(path, sync=sync, num_bytes=len(content)) as partial:
        partial.write_bytes(content)


def read_json(path: str | Path, *, missing: str = "no such file") -> Any:
    """Read a JSON file.

    Args:
        path: Regular file of at most ``MAX_JSON_BYTES`` bytes.
        missing: The error's words if there is no such file.

    Returns:
        The content: dict, list, str, int, float, bool or None. The caller checks the type.

    Raises:
        InputError: The file is missing, not a regular file, too large, not UTF-8, not JSON, or
            nested too deep; the message names the file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: {missing}")
    check_input_file(path)
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise InputError(f"{path}: JSON must be at most {MAX_JSON_BYTES} bytes, got {size}")
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise InputError(f"{path}: damaged JSON (nested too deep)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged or no JSON ({error})") from None


def parse_json(content: str | bytes, **options: Any) -> Any:
    """Parse JSON, and refuse what Python takes for text, but no file and no terminal can hold.

    Paths that are not UTF-8 stay: Python has a surrogate from U+DC80 for each byte of theirs.

    Args:
        content: A JSON value; bytes must be UTF-8.
        options: Options of ``json.loads``.

    Raises:
        ValueError: No JSON, not UTF-8, or half of a surrogate pair in a string.
        RecursionError: Nested too deep.
    """
    text = content.decode() if isinstance(content, bytes) else content
    value = json.loads(text, **options)
    if "\\u" in text:
        check_characters(value, errors="surrogateescape")
    return value


def is_text(text: str) -> bool:
    r"""Return whether text has no surrogate, as ``"\ud800"``, but those of a path (U+DC80 on)."""
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def check_characters(value: Any, *, errors: str = "strict") -> None:
    r"""Raise ValueError for a string that has half of a surrogate pair, such as ``"\ud800"``.

    JSON and YAML can write one with an escape, and only with an escape where the file is UTF-8.

    Args:
        value: A JSON value; other objects count by their ``str``.
        errors: ``surrogateescape`` for a value that may have paths.
    """
    try:
        json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode(errors=errors)
    except UnicodeEncodeError as error:
        half = printable(error.object[error.start])
        raise ValueError(f"a string has {half}, half of a surrogate pair") from None


def read_json_object(path: str | Path, *, missing: str = "no such file") -> dict[str, Any]:
    """Read a JSON file that holds one object; arguments and errors as ``read_json``."""
    content = read_json(path, missing=missing)
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a JSON object, got {type(content).__name__}")
    return content


def describe_difference(there: Any, here: Any, key: str = "") -> list[str]:
    """Return a line for each difference of two JSON values: ``trainer.seed: 1 there, 2 here``."""
    if not isinstance(there, dict) or not isinstance(here, dict):
        return [] if there == here else [f"{key}: {_short(there)} there, {_short(here)} here"]
    lines = []
    for name in sorted(there.keys() | here.keys()):
        inner = f"{key}.{name}" if key else name
        if name not in there:
            lines.append(f"{inner}: absent there, {_short(here[name])} here")
        elif name not in here:
            lines.append(f"{inner}: {_short(there[name])} there, absent here")
        else:
            lines += describe_difference(there[name], here[name], inner)
    return lines


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_LENGTH else f"{text[:MAX_SHOWN_LENGTH]}..."


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``content`` with its checksum under the key ``sha256``, for ``write_json``."""
    return {**content, SEAL_KEY: _digest(content)}


def check_seal(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the content that ``seal`` was given.

    Raises:
        InputError: The checksum is missing or another one; the message names the file.
    """
    plain = {key: value for key, value in content.items() if key != SEAL_KEY}
    if content.get(SEAL_KEY) != _digest(plain):
        raise InputError(f"{path}: damaged (its checksum does not match)")
    return plain


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_input_file(path: Path) -> None:
    """Refuse anything but a regular file or a link to one, which could block or never end."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    _check_regular(path, mode)


def refuse_special_file(path: str | Path) -> None:
    """Refuse a pipe, socket or device: opening a pipe would wait for ever.

    A missing file and a directory are left to readers with their own words for those.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISDIR(mode):
        _check_regular(path, mode)


def check_output_file(path: Path) -> None:
    """Refuse an output that exists and is not a regular file: a device is not replaced."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    _check_regular(path, mode, purpose=" to write")


def check_writable(path: str | Path) -> None:
    """Check that a file can be written, before the work whose result it is.

    Writes and removes a small file on the same disk, and leaves nothing, not even a directory.

    Raises:
        InputError: ``path`` exists and is not a regular file, or a directory of it is a file.
        WriteError: The disk is full or read-only, or the directory may not be written.
    """
    path = Path(path)
    directory = path.parent
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    if not directory.is_dir():
        raise InputError(f"{directory}: must be a directory, got a file")
    check_output_file(path)
    probe = partial_path(directory / path.name, unique=True)
    try:
        with naming_disk_errors(path, partial=probe), probe.open("xb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        with suppress(OSError):
            probe.unlink()


def writing_problem(directory: Path) -> str | None:
    """Return why nothing can be written to a directory, there or to be made; None if it can."""
    try:
        check_writable(directory / "probe")
    except OSError as error:
        return error.strerror or str(error)
    return None


def user_cache_directory() -> Path:
    """Return the folder of this user's caches, for tools without a directory of their own."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a container's user may have no home
        cache = Path(".cache")
    return cache / "instance-cascade"


def _check_regular(path: str | Path, mode: int, purpose: str = "") -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "special file")
        raise InputError(f"{path}: must be a regular file{purpose}, got a {kind}")


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_directory(path: Path) -> None:
    """Make a directory and its parents, if they are missing."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{error.filename}: must be a directory, got a file") from None


def fsync(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def printable(text: object, *, limit: int = 200) -> str:
    r"""Return text of a file in a form that is safe to print.

    Control characters, escape sequences and line ends are escaped, as ``\x1b``, and text beyond
    ``limit`` characters is cut. Rich markup and HTML are not escaped: to print with rich, pass
    ``markup=False`` or ``rich.markup.escape``.
    """
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def read_preset(presets: Path, name: str, *, key: str) -> dict[str, Any]:
    """Read a file of a configuration group by its name, see ``read_yaml_values``.

    Args:
        presets: The group's folder.
        name: The file's name without suffix.
        key: The key that has the name, for the message.

    Raises:
        InputError: There is none; names those there are.
    """
    names = sorted(path.stem for path in presets.glob("*.yaml"))
    if name not in names:
        raise InputError(f"{key} must be one of {', '.join(names)}, got {name!r:.60}")
    return read_yaml_values(presets / f"{name}.yaml", presets=presets)


def _check_expansion(content: Any) -> None:
    """Refuse aliases that stand for more values than a file of this kind has.

    ``b: &b [*a, *a]`` is twice ``a``: few lines make billions, which nothing here may go through.
    """
    sizes: dict[int, int] = {}

    def size_of(value: Any) -> int:
        if not isinstance(value, dict | list | tuple):
            return 1
        if id(value) not in sizes:
            sizes[id(value)] = MAX_YAML_VALUES  # while it is counted: where it holds itself
            inner = value.values() if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(map(size_of, inner))
        return sizes[id(value)]

    if size_of(content) > MAX_YAML_VALUES:
        raise ValueError(f"its aliases stand for more than {MAX_YAML_VALUES} values")


def read_yaml_values(path: Path, *, presets: Path) -> dict[str, Any]:
    """Read a YAML file of a configuration group, with the values of the files in its ``defaults``.

    Args:
        path: The file.
        presets: Folder of the group's own files, which ``defaults`` names.

    Raises:
        InputError: The file cannot be read, or its defaults are unknown or lead back to it.
    """
    check_input_file(path)
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        _check_expansion(content)
        check_characters(content)
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise InputError(f"{path}: must hold keys with values, got {content!r:.60}")
        bases = content.pop("defaults", [])
        if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
            raise InputError(f"defaults must be a list of presets, got {bases!r:.60} ({path})")
        values: dict[str, Any] = {}
        for base in bases:
            values |= content if base == "_self_" else read_preset(presets, base, key="preset")
        return values | content
    except InputError:
        raise
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML ({printable(str(error))})") from None
