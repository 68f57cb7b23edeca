"""Running a page: a reader's copy of the repository, small data, and the page's commands in it.

Commands run as the page has them, with what ``page_overrides`` adds, on data of ``page_library``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.page_library import DATA, KNOWN, OWN_RUN, Library, environment
from tests.helpers.page_overrides import outputs_of, small
from tests.helpers.pages import ROOT, Block
from tests.helpers.warm_python import Ended

COPIED = ("src", "conf", "experiments", "examples", "tests", "docs", "requirements")
COPIED_FILES = ("Makefile", "pyproject.toml", "README.md")
# Commands that tests of their own run on small data, or that install and measure.
RUN_ELSEWHERE = {
    "experiments.ladder": "tests/experiments/test_ladder.py",
    "pre-commit": ".pre-commit-config.yaml",
}
EXIT_CODES = {"src.lab": (130,), "src.doctor": (0, 1)}  # others: 0; the lab ends by Ctrl-C
MODELS = (  # need torch
    *("src.train", "src.predict", "src.import_weights", "src.average", "src.bundle"),
)
# What a command reads without naming it: a regular expression of the command, and files.
READS = (
    (r"src\.train.*\+experiment=htc_x101", (*DATA, "data/htc_x101_dcn_coco.safetensors")),
    (r"src\.predict.*\+experiment=htc_x101", (*DATA, "data/split.json")),
    (r"src\.predict -m checkpoint=best", DATA),
    (r"outputs/own/best\.ckpt", OWN_RUN),
    (r"ensemble=top3", ("outputs/htc_x101/checkpoints",)),
    (r"src\.(train|predict).*\+experiment=demo", ("outputs/demo/data",)),
)
MULTIRUN = re.compile(r"multirun/postprocess/(\w+)-[0-9a-f]{8}(?:/([0-9a-f]{8}))?")


def patched(text: str, block: Block) -> str:
    """Return a text with the hunks of a diff, each of which must fit in one place."""
    for hunk in block.text.split("\n@@\n")[1:]:
        lines = hunk.split("\n")
        old = "\n".join(line[1:] for line in lines if line[:1] in " -")
        new = "\n".join(line[1:] for line in lines if line[:1] in " +")
        assert text.count(old) == 1, f"{block.place}: not once in {block.file}:\n{old}"
        text = text.replace(old, new)
    return text


@dataclass
class Run:
    """A page's run: its folder, the library, and what its commands cost."""

    folder: Path
    library: Library
    with_models: bool = True  # False: commands of MODELS are left out, the library has their output
    env: dict[str, str] = field(default_factory=dict)
    program: str = ""  # the Python blocks so far
    jobs: dict[str, str] = field(default_factory=dict)
    cpu_seconds: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        hidden = shutil.ignore_patterns(".*", "site")
        for name in COPIED:
            shutil.copytree(ROOT / name, self.folder / name, ignore=hidden, symlinks=True)
        for name in COPIED_FILES:
            shutil.copy(ROOT / name, self.folder / name)
        (self.folder / ".venv").symlink_to(sys.prefix)
        self.env = environment(self.folder)

    def block(self, block: Block) -> None:
        """Do what a block asks for: write its file, run its Python or its commands."""
        if block.not_run is not None or block.kind == "text":
            return
        if block.file is not None:
            self.write(block)
        elif block.kind == "python":
            self.provide(block.text)
            self.program += f"\n{block.text}\n"
            path = self.folder / "page.py"
            path.write_text(self.program)
            self.python([str(path)], block.place)
        else:
            for line, command in block.commands():
                self.command(command, f"{block.page}, line {line}")

    def write(self, block: Block) -> None:
        assert block.file is not None
        path = (self.folder / block.file).resolve()
        assert path.is_relative_to(self.folder.resolve()), f"{block.place}: {block.file}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if block.kind == "patch":
            path.write_text(patched(path.read_text(), block))
        else:
            path.write_text(block.text + "\n")
        if path.suffix == ".py" and block.file.startswith("src/"):
            module = block.file.removesuffix(".py").replace("/", ".")
            check = self.folder / "page_import.py"
            check.write_text(f"import importlib\nimportlib.import_module({module!r})\n")
            self.python([str(check)], block.place)

    def command(self, command: str, place: str) -> None:
        """Run one line of a shell; a program that is not Python's runs in a shell."""
        words = shlex.split(command, comments=True)
        env = {}
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, env[name] = words.pop(0).partition("=")
        assert "..." not in words, f"{place}: a command must be whole"
        operators = {"&&", "||", "|", ";", ">", "<"} & set(words)
        without = () if self.with_models else MODELS
        if any(word in (*RUN_ELSEWHERE, *without) for word in words):
            return
        if words[0] == "make" and not operators:
            self.shell(f"make -n {shlex.join(words[1:])}", place)
        elif words[0] == "tensorboard":
            self.provide(" ".join(words))
            self.shell(f"{command} --inspect", place)
        elif words[:2] != ["python", "-m"] or operators:
            self.provide(command)
            self.shell(command, place)
        else:
            words = self.substituted(words)
            read = [word for word in words if word not in outputs_of(words)]
            self.provide(" ".join(word.partition("=")[2] for word in read))
            for pattern, names in READS:
                if re.search(pattern, command):
                    self.provide(" ".join(names))
            words = [self.local_source(word) for word in small(words)]
            if words[2] == "src.lab":
                self.lab(words[1:], place)
            else:
                self.python(words[1:], place, env)

    def provide(self, text: str) -> None:
        """Copy what a text names from the library, where the page has not made it."""
        for name in dict.fromkeys(re.findall(r"[\w.-]+(?:/[\w.-]+)*", text)):
            known = next((one for one in KNOWN if name == one or name.startswith(f"{one}/")), None)
            if known is None or (self.folder / known).exists():
                continue
            found, target = self.library.find(known), self.folder / known
            target.parent.mkdir(parents=True, exist_ok=True)
            if found.is_dir():
                shutil.copytree(found, target, symlinks=True)
            else:
                shutil.copy2(found, target)

    def substituted(self, words: Sequence[str]) -> list[str]:
        """Put the names of folders that earlier commands made for the page's examples of them."""
        return [self._substituted(word) for word in words]

    def _substituted(self, word: str) -> str:
        found = MULTIRUN.search(word)
        if found is None:
            return word
        (sweep,) = self.folder.glob(f"multirun/postprocess/{found[1]}-????????")
        if found[2] is not None:
            jobs = sorted(path.parent.name for path in sweep.glob("*/result.json"))
            free = [job for job in jobs if job not in self.jobs.values()]
            sweep /= self.jobs.setdefault(found[2], (free or jobs)[0])
        return word[: found.start()] + str(sweep.relative_to(self.folder)) + word[found.end() :]

    def local_source(self, word: str) -> str:
        """Put a local checkpoint for one of a model index, which would be downloaded."""
        key, _, value = word.partition("=")
        if key != "source" or (self.folder / value).exists():
            return word
        self.provide("zoo.pth")
        return "source=zoo.pth"

    def python(self, words: Sequence[str], place: str, env: dict[str, str] | None = None) -> None:
        output = self.folder / "output.txt"
        pid = self.library.python.start(
            words, cwd=self.folder, env=self.env | (env or {}), output=output
        )
        self.check(self.library.python.wait(pid, output=output), words, place)

    def shell(self, command: str, place: str) -> None:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=os.environ | self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.check(Ended(done.returncode, 0.0, done.stdout), [command], place)

    def lab(self, words: Sequence[str], place: str) -> None:
        """Start the lab, fetch its page, and end it as Ctrl-C does."""
        output = self.folder / "output.txt"
        output.write_text("")
        python = self.library.python
        pid = python.start(words, cwd=self.folder, env=self.env, output=output)
        until = time.monotonic() + 120
        address = None
        while address is None and time.monotonic() < until:
            time.sleep(0.1)
            address = re.search(r"http://127\.0\.0\.1:\d+/\S*", output.read_text())
        content = ""
        if address is not None:
            with urllib.request.urlopen(address[0], timeout=60) as answer:
                content = answer.read().decode()
        os.kill(pid, signal.SIGINT)
        self.check(python.wait(pid, output=output), words, place)
        assert "<html" in content, f"{place}: no page"

    def check(self, ended: Ended, words: Sequence[str], place: str) -> None:
        self.cpu_seconds.append((ended.cpu_seconds, place))
        told = f"{place}: exit code {ended.code}\n$ {shlex.join(words)}\n{ended.output[-3000:]}"
        assert ended.code in EXIT_CODES.get(words[1] if words[1:] else "", (0,)), told
        assert "Traceback (most recent call last)" not in ended.output, told
