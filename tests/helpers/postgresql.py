"""A PostgreSQL server of a test's own, on a free port of this machine, that asks for a password."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER, PASSWORD = "tuner", "open-sesame"


def find_programs() -> Path | None:
    """Return the folder of ``initdb`` and ``pg_ctl``; None where there is no PostgreSQL."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return debian[-1].parent if debian else None


def why_not() -> str | None:
    """Return why a test with PostgreSQL cannot run here; None where it can."""
    if find_programs() is None:
        return "no PostgreSQL: neither initdb on PATH nor /usr/lib/postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "no psycopg: make postgresql installs it"
    if os.geteuid() == 0 and _server_user() is None:
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


def _server_user() -> str | None:
    """Return the user that the server runs as; None for this one."""
    if os.geteuid() != 0 or "postgres" not in [one.pw_name for one in pwd.getpwall()]:
        return None
    return "postgres"


@contextmanager
def postgresql() -> Iterator[str]:
    """Yield the address of the server's database, without the password."""
    programs, user = find_programs(), _server_user()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # the server's user may not enter pytest's
    if user is not None:
        os.chown(folder, *pwd.getpwnam(user)[2:4])

    def run(*words: str) -> None:
        command = [str(programs / words[0]), "-D", str(folder / "data"), *words[1:]]
        as_user = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        with (folder / "log").open("a") as log:
            done = subprocess.run(
                command,
                check=False,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **as_user,  # type: ignore[call-overload]
            )
        assert done.returncode == 0, (folder / "log").read_text()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "password").write_text(f"{PASSWORD}\n")
    try:
        file = f"--pwfile={folder / 'password'}"
        run("initdb", "-A", "scram-sha-256", "-U", USER, file, "--no-sync")
        run("pg_ctl", "-w", "-o", f"-p {port} -h 127.0.0.1 -k {folder} -F", "start")
        try:
            yield f"postgresql://{USER}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
