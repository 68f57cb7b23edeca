"""Write a submission without a network, from the bundle that this file lies in.

    python BUNDLE/submit.py images=DIR sample_submission=FILE output=submission.csv

images             the folder of images to predict
sample_submission  sample_submission.csv: the images to submit; without, all of images
output             the submission; submission.csv
work_dir           a folder for the environment and the predictions; submission_work
partial            true: images that cannot be read are submitted without a detection
other keys         those of python -m src.predict, as trainer=cpu

The bundle is not written to. The same command resumes. Needs the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
WHOLE_FOLDERS = ("code", "weights", "wheels")  # used as they are: no other file may lie in them
CHUNK_BYTES = 1 << 22
MAX_VIOLATIONS = 20  # that are shown
KEYS = ("images", "sample_submission", "output", "work_dir", "partial")
# Of a notebook, for which its own environment has what they name.
HIDDEN_VARIABLES = ("MPLBACKEND", "PYTHONHOME", "PYTHONSTARTUP")


class BundleError(Exception):
    """A bundle that is damaged or does not fit, or a step that failed; one line."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def quote(text: object) -> str:
    """Return a text as Hydra takes it, whatever signs it has."""
    quoted = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", str(text))
    quoted = re.sub(r"(\\*)'", lambda found: 2 * found[1] + "\\'", quoted)
    last = quoted[len(quoted.rstrip("\\")) :]
    return f"'{quoted}{last}'"


class Bundle:
    """The steps from a bundle to a submission, in order.

    Args:
        images: The folder of images to predict.
        sample_submission: The images to submit; None: all of ``images``.
        output: The submission to write.
        work_dir: A folder for the environment and the predictions.
        partial: Whether images that cannot be read are submitted without a detection.
        overrides: Arguments of ``python -m src.predict``, beside those of the bundle.
        directory: The bundle.

    Raises:
        BundleError: There is no bundle, or the images are missing.
    """

    def __init__(
        self,
        images: str | Path,
        sample_submission: str | Path | None = None,
        output: str | Path = "submission.csv",
        work_dir: str | Path = "submission_work",
        *,
        partial: bool = False,
        overrides: Sequence[str] = (),
        directory: str | Path = Path(__file__).parent,
    ) -> None:
        self.directory = Path(directory).resolve()
        self.images = Path(images).resolve()
        self.sample_submission = None if sample_submission is None else Path(sample_submission)
        self.output = Path(output).resolve()
        self.work_dir = Path(work_dir).resolve()
        self.partial = partial
        self.overrides = list(overrides)
        try:
            self.manifest: dict[str, Any] = json.loads(
                (self.directory / MANIFEST).read_text("utf-8")
            )
        except (OSError, ValueError) as error:
            raise BundleError(f"{self.directory}: no bundle, or damaged ({error})") from None
        if not self.images.is_dir():
            raise BundleError(f"images must be a folder, got {images}")
        if self.sample_submission is not None:
            if not self.sample_submission.is_file():
                raise BundleError(f"sample_submission must be a file, got {sample_submission}")
            self.sample_submission = self.sample_submission.resolve()
        self.environment = self.work_dir / "environment"

    @property
    def python(self) -> str:
        """The interpreter of the bundle's environment."""
        own = self.environment / "bin" / "python"
        return sys.executable if self.manifest["leave_out"] == "all" else str(own)

    def run(self) -> None:
        """Do every step."""
        for step in (self.verify, self.install, self.predict, self.postprocess, self.validate):
            step()

    def verify(self) -> None:
        """Compare every file with the manifest.

        Raises:
            BundleError: A file is missing, damaged, or none of the bundle's.
        """
        files: dict[str, dict[str, Any]] = self.manifest["files"]
        for name, known in files.items():
            path = self.directory / name
            if not path.is_file():
                raise BundleError(f"{path}: missing; upload the bundle again")
            size = path.stat().st_size
            if size != known["bytes"] or sha256_of(path) != known["sha256"]:
                raise BundleError(
                    f"{path}: must have {known['bytes']} bytes and the SHA-256 of {MANIFEST}, got "
                    f"{'others' if size == known['bytes'] else size}; upload the bundle again"
                )
        for folder in WHOLE_FOLDERS:
            for path in sorted((self.directory / folder).rglob("*")):
                if not path.is_dir() and path.relative_to(self.directory).as_posix() not in files:
                    raise BundleError(f"{path}: must be a file of {MANIFEST}, got another")
        whole = sum(known["bytes"] for known in files.values())
        print(f"verified {len(files)} files, {whole / 2**20:.1f} MiB", flush=True)

    def install(self) -> None:
        """Make an environment of the bundle's wheels.

        Raises:
            BundleError: The interpreter is not the bundle's, or pip fails.
        """
        self.work_dir.mkdir(parents=True, exist_ok=True)
        if self.manifest["leave_out"] == "all":
            print("nothing is installed: the bundle uses this interpreter's packages", flush=True)
            return
        self._check_interpreter()
        done = self.environment / "installed"
        identity = sha256_of(self.directory / "requirements.txt")
        if done.is_file() and done.read_text() == identity:
            print(f"installed already: {self.environment}", flush=True)
            return
        shutil.rmtree(self.environment, ignore_errors=True)
        has_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True)
        is_own = has_pip.returncode != 0  # then the standard library's
        builder = venv.EnvBuilder(
            symlinks=True,
            with_pip=is_own,
            system_site_packages=bool(self.manifest["leave_out"]),
        )
        try:
            builder.create(self.environment)
        except (OSError, subprocess.CalledProcessError) as error:
            raise BundleError(f"{self.environment}: cannot be made ({error})") from None
        wheels = str(self.directory / "wheels")
        pip = [self.python, "-m", "pip"]
        if not is_own:
            pip = [sys.executable, "-m", "pip", "--python", self.python]
        self._run(
            "the installation",
            *(*pip, "--isolated", "--disable-pip-version-check", "install", "--quiet"),
            *("--no-index", "--find-links", wheels, "--no-deps", "--require-hashes"),
            *("--no-cache-dir", "--no-compile"),
            *("--requirement", str(self.directory / "requirements.txt")),
        )
        done.write_text(identity)
        print(f"installed {self.manifest['packages']} packages without a network", flush=True)

    def predict(self) -> None:
        """Predict every image; images that were predicted before are left out.

        Raises:
            BundleError: It failed, or images cannot be read and ``partial`` is false.
        """
        sample = self.sample_submission
        weights = ",".join(quote(self.directory / name) for name in self.manifest["weights"])
        code = self._run(
            "the prediction",
            *(self.python, "-m", "src.predict", *self.manifest["predict"]),
            *(f"checkpoint=[{weights}]", f"images={quote(self.images)}"),
            f"datamodule.sample_submission={'null' if sample is None else quote(sample)}",
            *(f"paths.output_dir={quote(self.work_dir)}", f"hydra.run.dir={quote(self.work_dir)}"),
            f"predictions={quote(self.work_dir / 'predictions')}",
            *self.overrides,
            allowed=(0, 1) if self.partial else (0,),
        )
        if code:
            print("warning: partial=true: what could not be predicted is left empty", flush=True)

    def postprocess(self) -> None:
        """Write the submission.

        Raises:
            BundleError: It failed.
        """
        self._run(
            "the post-processing",
            *(self.python, "-m", "src.postprocess", "postprocess=bundle", "competition=bundle"),
            f"predictions={quote(self.work_dir / 'predictions')}",
            *(f"output={quote(self.output)}", f"output_dir={quote(self.work_dir)}"),
            *self._sample(),
            f"partial={str(self.partial).lower()}",
        )

    def validate(self) -> None:
        """Check the submission against the competition's rules.

        Raises:
            BundleError: It violates one.
        """
        if self.manifest["submission"] != "csv":
            print(f"{self.output}: no CSV, whose rules could be checked", flush=True)
            return
        self._run(
            "the check of the submission",
            *(self.python, "-m", "src.validate_submission", "competition=bundle"),
            *(f"submission={quote(self.output)}", f"images={quote(self.images)}", *self._sample()),
            max_lines=MAX_VIOLATIONS,
        )

    def _sample(self) -> list[str]:
        sample = self.sample_submission
        return [] if sample is None else [f"sample_submission={quote(sample)}"]

    def _check_interpreter(self) -> None:
        wanted = self.manifest["python"], self.manifest["machine"]
        own = f"{sys.version_info.major}.{sys.version_info.minor}", platform.machine()
        if wanted != own:
            raise BundleError(
                f"the interpreter must be Python {wanted[0]} on {wanted[1]}, which the wheels are "
                f"for, got {own[0]} on {own[1]}; python -m src.bundle python_version={own[0]} "
                "makes such a bundle"
            )

    def _run(
        self, what: str, *command: str, allowed: Sequence[int] = (0,), max_lines: int = 10**9
    ) -> int:
        """Run a command on the bundle's code, show its lines, and return its exit code.

        Of more than ``max_lines`` the first and the last are shown.
        """
        variables = {k: v for k, v in os.environ.items() if k not in HIDDEN_VARIABLES}
        variables["PYTHONPATH"] = str(self.directory / "code")
        variables["PYTHONPYCACHEPREFIX"] = str(self.work_dir / "pycache")
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=self.work_dir,
            env=variables,
        ) as process:
            assert process.stdout is not None
            line = ""
            for number, line in enumerate(process.stdout, start=1):
                if number <= max_lines:
                    print(line, end="", flush=True)
                    line = ""
            print(line and f"...\n{line}", end="", flush=True)
        if process.returncode not in allowed:
            raise BundleError(
                f"{what} ended with exit code {process.returncode}; the lines above say why"
            )
        return process.returncode


def main(arguments: Sequence[str]) -> None:
    """Do every step, as the command line says."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    values: dict[str, str] = {}
    overrides = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not value:
            raise BundleError(f"arguments must be KEY=VALUE, got {argument} (--help has the keys)")
        if key in KEYS:
            values[key] = value
        else:
            overrides.append(argument)
    if "images" not in values:
        raise BundleError("images must be given: images=DIR (--help has the keys)")
    partial = values.pop("partial", "false")
    if partial not in ("true", "false"):
        raise BundleError(f"partial must be true or false, got {partial}")
    Bundle(**values, partial=partial == "true", overrides=overrides).run()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the same command resumes", file=sys.stderr)
        sys.exit(130)
