"""From the scores of the ladder on photographs to tables, drawings and the packed submission."""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image

from experiments.photographs import (
    DataSet,
    Variant,
    augmentations,
    backbones,
    ladder,
    quoted,
    submission_commands,
)
from experiments.running import ROOT, Done, run_steps
from experiments.tables import Row, paired_table, rewrite
from src.io import atomic_path, read_json_object, write_json
from src.metrics.intervals import bootstrap_interval, paired_bootstrap_interval
from src.metrics.scoring import read_scores

NUM_DRAWN = 4  # best and as many worst
DRAWING_WIDTH_PX = 900
DRAWING_GAP_PX = 12


def measure(variants: Sequence[Variant], directory: Path, *, first: bool) -> list[Row]:
    """Read the scores of variants, and compare each with the one before or with the first.

    Args:
        variants: Done.
        directory: Where the commands ran.
        first: Whether each is compared with the first one.
    """
    rows: list[Row] = []
    of = [read_scores(directory / variant.scores).per_image for variant in variants]
    for number, (variant, scores) in enumerate(zip(variants, of, strict=True)):
        values = list(scores.values())
        other = None if not number else of[0 if first else number - 1]
        gain = (
            None
            if other is None
            else paired_bootstrap_interval([other[name] for name in scores], values)
        )
        name = f"{variant.name} {variant.what}".strip()
        rows.append(Row(name, bootstrap_interval(values), gain, len(values)))
    return rows


def draw(data: DataSet, directory: Path, drawings: Path) -> None:
    """Draw the best and the worst validation images of the last rung, each beside its ground truth.

    Where the licence of the images is not clear, masks are drawn on white instead of on the image.
    """
    folder = directory / data.directory
    images = data.images
    last = ladder(data)[-1]
    scores = read_scores(directory / last.scores).per_image
    if not data.recipe.may_show_pixels:
        images = folder / "blank"
        shutil.rmtree(images, ignore_errors=True)
        for name in scores:
            with Image.open(data.images / name) as opened:
                blank = Image.new("RGB", opened.size, "white")
            path = images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            blank.save(path)
    shown = folder / "drawings"
    shutil.rmtree(shown, ignore_errors=True)
    found = f"file://{(directory / data.directory).resolve()}/found"
    command = [
        *("-m", "src.report", f"predictions={folder}/stores/three_models", "postprocess=s14"),
        f"hydra.searchpath=[{found}]",
        *(f"annotations={data.annotations.resolve()}", f"images={images.resolve()}"),
        f"competition={data.recipe.competition}",
        *(f"output={folder}/report.html", f"drawings_dir={shown}"),
        *(f"num_worst={NUM_DRAWN}", f"num_best={NUM_DRAWN}"),
    ]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    paths = sorted(shown.iterdir())[: 2 * NUM_DRAWN]
    drawn, width = [], (DRAWING_WIDTH_PX - DRAWING_GAP_PX) // 2
    for path in paths:
        with Image.open(path) as drawing:
            shown_left = 0 if data.recipe.may_show_pixels else drawing.width // 3  # the blank image
            cut = drawing.convert("RGB").crop((shown_left, 0, drawing.width, drawing.height))
            drawn.append(cut.resize((width, cut.height * width // cut.width)))
    rows = [drawn[at : at + 2] for at in range(0, len(drawn), 2)]
    heights = [max(one.height for one in row) + DRAWING_GAP_PX for row in rows]
    canvas = Image.new("RGB", (DRAWING_WIDTH_PX, sum(heights) - DRAWING_GAP_PX), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for at, image in enumerate(row):
            canvas.paste(image, (at * (width + DRAWING_GAP_PX), top))
        top += height
    drawings.mkdir(parents=True, exist_ok=True)
    canvas.save(drawings / "predictions.jpg", quality=85)


def better_rung(data: DataSet, directory: Path) -> str:
    """Return the rung with the greater cross-validated score, S13 or S14; S14 if it alone is done.

    Earlier rungs leave masks that overlap, which the competition refuses.
    """
    rungs = {variant.name: directory / variant.scores for variant in ladder(data)}
    if not rungs["S13"].is_file():
        return "s14"
    scores = {name: read_scores(rungs[name]).per_image.values() for name in ("S14", "S13")}
    return max(scores, key=lambda name: fmean(scores[name])).lower()


def pack_submission(data: DataSet, directory: Path, folder: Path) -> dict[str, Any]:
    """Write the submission gzipped, the same bytes each time, and return its digests."""
    content = (directory / data.directory / "submission.csv").read_bytes()
    packed = gzip.compress(content, mtime=0)
    with atomic_path(folder / "submission.csv.gz") as partial:
        partial.write_bytes(packed)
    return {
        "rows": content.count(b"\n") - 1,
        "sha256": hashlib.sha256(content).hexdigest(),
        "sha256_gzip": hashlib.sha256(packed).hexdigest(),
    }


def climb(data: DataSet, *, directory: Path, readmes: Path, tables: Iterable[str]) -> list[Row]:
    """Run what the wanted tables need, and write them into the README of the data set.

    Args:
        data: The data set.
        directory: Where the commands run.
        readmes: The folder of the experiments' folders.
        tables: Of ``ladder``, ``backbone``, ``augmentation``, ``submission``.

    Raises:
        CommandError: A command ended with an error.
        InputError: The README lacks its markers.
    """
    readme = readmes / data.recipe.name / "README.md"
    result_path = readme.with_name("result.json")
    result: dict[str, Any] = {}
    if result_path.exists():
        result = dict(read_json_object(result_path))
    done: dict[str, Done] = {}
    shown: list[Row] = []
    kinds = {
        "ladder": (ladder(data), "rung", "gain over the row before", False),
        "backbone": (backbones(data), "start", "gain", False),
        "augmentation": (augmentations(data), "training", "gain over flips alone", True),
    }
    for table in tables:
        if table == "submission":
            continue
        variants, head, compared, first = kinds[table]
        own: dict[str, Done] = {}
        for number, variant in enumerate(variants, start=1):
            print(f"[{number}/{len(variants)}] {variant.name} {variant.what}", flush=True)
            own |= {
                step.command: step
                for step in run_steps(variant.commands, directory, marks=data.directory)
            }
        done |= own
        rows = measure(variants, directory, first=first)
        shown += rows
        minutes = sum(step.seconds for step in own.values()) / 60
        cpu = [step.cpu_seconds for step in own.values() if step.cpu_seconds is not None]
        of_cpu = f" ({sum(cpu) / 60:.0f} of CPU)" if len(cpu) == len(own) else ""
        commits = ", ".join(dict.fromkeys(step.commit for step in own.values()))
        note = (
            f"{rows[0].images} validation images; intervals are 95% bootstrap intervals over "
            f"images, gains paired. Commit {commits}; {minutes:.0f} minutes{of_cpu} for this table "
            f"on {os.cpu_count()} cores ({platform.machine()}), an interrupted command counting "
            "from where it resumed."
        )
        block = paired_table(rows, head=head, compared=compared)
        rewrite(readme, table, f"{block}\n\n{textwrap.fill(note, 110)}")
        commands = "\n".join(
            f"    {command}" for command in dict.fromkeys(c for v in variants for c in v.commands)
        )
        if table == "ladder":
            rewrite(readme, "commands", anonymous(commands, data))
            draw(data, directory, readme.parent)
            rewrite(
                readme,
                "drawings",
                "![Ground truth and detections of eight validation images](predictions.jpg)",
            )
        result[table] = {
            "minutes": round(minutes, 1),
            "commits": commits,
            "num_validation_images": rows[0].images,
            "rows": [
                {
                    "name": row.name,
                    "score": row.score.estimate,
                    "interval": [row.score.low, row.score.high],
                    "gain": None if row.gain is None else row.gain.difference.estimate,
                    "gain_interval": None
                    if row.gain is None
                    else [row.gain.difference.low, row.gain.difference.high],
                }
                for row in rows
            ],
        }
        write_json(result_path, result, sort_keys=False)
    if "submission" in tables:
        settings = better_rung(data, directory)
        steps = (*ladder(data)[-1].commands, *submission_commands(data, settings))
        run_steps(steps, directory, marks=data.directory)
        result["submission"] = {
            "settings": settings,
            **pack_submission(data, directory, readme.parent),
        }
        write_json(result_path, result, sort_keys=False)
    return shown


def anonymous(commands: str, data: DataSet) -> str:
    """Return commands with the place of the data as a reader would have it."""
    name = data.recipe.name
    places = {data.annotations: f"data/{name}/train.json", data.images: f"data/{name}/train"}
    if data.test_images is not None:
        places[data.test_images] = f"data/{name}/test"
    for path, shown in sorted(places.items(), key=lambda item: -len(str(item[0]))):
        commands = commands.replace(quoted(path), shown)
    return commands
