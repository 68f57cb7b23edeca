"""Load: commands on data as large as what people bring, their time and peak memory.

    python -m benchmarks load                     # all stages: about an hour on two cores
    python -m benchmarks load --stage coco        # some of them; the other results stay
    python -m benchmarks load --output-dir DIR    # where the generated data lies meanwhile

Each stage generates its data in a temporary folder, runs the commands that a user types, each a
process of its own, and removes the folder. Peak memory is that of the process with its children.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import load_inputs
from benchmarks.measuring import Running, measure, running, summary
from benchmarks.postprocess import IMAGE_HW
from src.postprocess.settings import PostprocessSettings

LAB_START = "winner_all_classes"
MOVES: dict[str, list[dict[str, Any]]] = {
    "score_threshold": [{"score_threshold": k / 100} for k in range(51, 56)],
    "mask_threshold": [{"mask_threshold": k / 100} for k in range(46, 51)],
    "nms_iou_threshold": [{"nms_iou_threshold": k / 100} for k in range(31, 36)],
}
_PAUSE_S = 1.0  # between two moves of a slider
_START_S = 600  # that the lab may take to print its address


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each stage has."""

    csv_instances: int = 333_415  # iMaterialist 2019
    csv_long_edge_px: int = 4500
    csv_validation: int = 450
    coco_images: int = 118_287  # COCO's train2017
    coco_instances: int = 860_001
    coco_validation: int = 5000
    store_images: int = 3200
    candidates: int = 100
    small_store_images: int = 40
    jobs: tuple[int, int, int] = (20, 10, 5)  # score, NMS and mask thresholds
    trials: int = 2000
    image_edge_px: int = 10_000
    image_instances: int = 40
    train_edges_px: tuple[int, int] = (1200, 1900)  # the recipe's largest
    pause_s: float = _PAUSE_S


Figures = dict[str, Any]
Report = Callable[[str, Figures], None]


def train_words(annotations: str, images: str, validation: int, *more: str) -> list[str]:
    """Return the arguments of a training of one step on one core, without its validation."""
    return [
        *("+experiment=own", f"annotations={annotations}", f"images={images}", "trainer=cpu"),
        *("trainer.max_epochs=1", "trainer.max_steps=1", "trainer.limit_val_batches=0"),
        *(f"datamodule.num_validation_images={validation}", "datamodule.batch_size=1"),
        "num_torch_threads=1",
        *more,
    ]


def measure_annotations(
    folder: Path, annotations: str, images: str, validation: int, report: Report
) -> None:
    """Convert annotations, split them twice, the second time from the store, and train one step."""
    given = (f"annotations={annotations}", f"images={images}")
    found = measure("convert", *given, "output=converted.json", folder=folder)
    report("convert", found | {"output_mb": _megabytes(folder / "converted.json")})
    (folder / "converted.json").unlink()
    number = f"num_validation_images={validation}"
    report("split", measure("split", *given, number, folder=folder))
    report("split_again", measure("split", *given, number, "seed=1", folder=folder))
    cache = f"paths.cache_dir={Path(annotations).parent / '.cache'}"
    words = train_words(annotations, images, validation, cache)
    report("train", measure("train", *words, folder=folder))


def csv_stage(folder: Path, sizes: Sizes, report: Report) -> None:
    """A train.csv of iMaterialist 2019's size: convert, split, train one step."""
    rows, edge = sizes.csv_instances, sizes.csv_long_edge_px
    words = ("output=data", "csv_only=true", "num_workers=1", f"image_size={edge}")
    report("synthesize", measure("synthesize", *words, f"num_rows={rows}", folder=folder))
    source = folder / "data/train.csv"
    named = load_inputs.sizes_in_csv(source)
    load_inputs.write_plain_images(folder / "data/train", named)
    report("data", {"images": len(named), "instances": rows, "mb": _megabytes(source)})
    measure_annotations(folder, "data/train.csv", "data/train", sizes.csv_validation, report)


def coco_stage(folder: Path, sizes: Sizes, report: Report) -> None:
    """A COCO JSON of train2017's size: convert, split, train one step."""
    source = folder / "instances.json"
    named = load_inputs.write_coco(source, sizes.coco_images, sizes.coco_instances)
    load_inputs.write_plain_images(folder / "images", named)
    counts = {"images": len(named), "instances": sizes.coco_instances, "mb": _megabytes(source)}
    report("data", counts)
    measure_annotations(folder, "instances.json", "images", sizes.coco_validation, report)


def store_stage(folder: Path, sizes: Sizes, report: Report) -> None:
    """A store of the competition's test set: post-process, validate, report, lab."""
    load_inputs.write_predictions(folder, sizes.store_images, sizes.candidates)
    load_inputs.write_drawn_images(folder / "images", sizes.store_images, size_hw=IMAGE_HW)
    counts = {"images": sizes.store_images, "candidates_an_image": sizes.candidates}
    report("data", counts | {"mb": _megabytes(folder / "store")})
    store = ("predictions=store", f"postprocess={LAB_START}")
    sample, truth, images = "sample_submission=sample.csv", "annotations=truth.csv", "images=images"
    report(
        "postprocess",
        measure("postprocess", *store, sample, "output=submission.csv", folder=folder),
    )
    words = ("submission=submission.csv", sample)
    report("validate_submission", measure("validate_submission", *words, folder=folder))
    scored = (*store, truth, "cache_dir=.cache")
    report(
        "postprocess_with_truth",
        measure("postprocess", *scored, "output=scored.csv", folder=folder),
    )
    for name, words in (("report", (*store, images)), ("report_with_truth", (*scored, images))):
        found = measure("report", *words, "output=report.html", folder=folder)
        report(name, found | {"output_mb": _megabytes(folder / "report.html")})
    for name, words in (("lab", store), ("lab_with_truth", scored)):
        report(name, measure_lab(folder, [*words, images], sizes))


def measure_lab(folder: Path, words: list[str], sizes: Sizes) -> Figures:
    """Start the lab, ask for what its page asks for, and end it with Ctrl-C."""
    line = ["-m", "src.lab", *words, "port=0", "open_browser=false", "session_dir=session"]
    path, start = folder / "output.txt", time.perf_counter()
    with path.open("w") as file, running(line, folder, file) as found:
        page = _Page(_port(path, found))
        page.ask("GET", "/")
        page.ask("GET", "/api/lab")
        first_page = time.perf_counter() - start
        origin = PostprocessSettings.preset(LAB_START)
        settings = origin.to_dict()
        first = page.seconds("/api/score", settings=settings, baseline=settings)
        moves: dict[str, Any] = {}
        for name, changes in MOVES.items():
            scores, views = [], []
            for change in changes:
                moved = origin.replace(**change).to_dict()
                views.append(page.seconds("/api/image", settings=moved, index=0, ghosts=False))
                scores.append(page.seconds("/api/score", settings=moved, baseline=settings))
                time.sleep(sizes.pause_s)
            moves[name] = {
                "image_ms": round(1e3 * statistics.median(views), 1),
                "score_ms": round(1e3 * statistics.median(scores), 1),
                "slowest_score_ms": round(1e3 * max(scores), 1),
            }
        found.process.send_signal(signal.SIGINT)
    return {
        **found.figures,
        "first_page_s": round(first_page, 2),
        "first_score_s": round(first, 2),
        "after_a_move_of": moves,
    }


def _port(path: Path, lab: Running) -> int:
    """Return the port in the address that the lab prints."""
    for _ in range(10 * _START_S):
        if address := re.search(r"http://127\.0\.0\.1:(\d+)/", path.read_text(encoding="utf-8")):
            return int(address[1])
        if lab.process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"the lab does not start: {path.read_text(encoding='utf-8')[-2000:]}")


class _Page:
    """Sends the requests of a page."""

    def __init__(self, port: int) -> None:
        self._port, self._sequence = port, 0

    def ask(self, method: str, path: str, body: str | None = None) -> bytes:
        connection = HTTPConnection("127.0.0.1", self._port)
        connection.request(method, path, body=body, headers={"X-Lab": "1"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:500]!r}")
        return content

    def seconds(self, path: str, **body: Any) -> float:
        self._sequence += 1
        start = time.perf_counter()
        self.ask("POST", path, json.dumps({"client": "bench", "sequence": self._sequence, **body}))
        return time.perf_counter() - start


def sweep_stage(folder: Path, sizes: Sizes, report: Report) -> None:
    """A sweep of a thousand jobs on a small store, again when it is finished, and its page."""
    load_inputs.write_predictions(folder, sizes.small_store_images, sizes.candidates)
    scores, ious, masks = sizes.jobs
    words = (
        *("-m", "predictions=store", "annotations=truth.csv", "cache_dir=.cache"),
        f"postprocess={LAB_START}",
        f"postprocess.score_threshold={_values(scores)}",
        f"postprocess.nms_iou_threshold={_values(ious)}",
        f"postprocess.mask_threshold={_values(masks)}",
    )
    counts = {"images": sizes.small_store_images, "candidates_an_image": sizes.candidates}
    report("data", counts | {"jobs": scores * ious * masks})
    report("sweep", measure("postprocess", *words, folder=folder))
    report("sweep_again", measure("postprocess", *words, folder=folder))
    (sweep,) = (folder / "multirun/postprocess").iterdir()
    words = (f"sweep={sweep.relative_to(folder)}", "output=sweep.html")
    found = measure("report", *words, folder=folder)
    report("report", found | {"output_mb": _megabytes(folder / "sweep.html")})


def _values(count: int) -> str:
    """Return so many thresholds from 0.3 up."""
    return ",".join(f"{0.3 + 0.02 * k:g}" for k in range(count))


def search_stage(folder: Path, sizes: Sizes, report: Report) -> None:
    """A search of two thousand trials on a small store, and again when it is finished."""
    load_inputs.write_predictions(folder, sizes.small_store_images, sizes.candidates)
    words = (
        *("predictions=store", "annotations=truth.csv", "cache_dir=.cache", "config_dir=options"),
        f"num_trials={sizes.trials}",
    )
    counts = {"images": sizes.small_store_images, "candidates_an_image": sizes.candidates}
    report("data", counts | {"trials": sizes.trials})
    found = measure("search", *words, folder=folder)
    (storage,) = folder.rglob("search.db")
    report("search", found | {"search_db_mb": _megabytes(storage)})
    report("search_again", measure("search", *words, folder=folder))


def image_stage(folder: Path, sizes: Sizes, report: Report) -> None:
    """Images of 100 million pixels, as JPEG and as PNG: train, predict, post-process, report."""
    edge, instances = sizes.image_edge_px, sizes.image_instances
    pixels = load_inputs.draw_large(0, (edge, edge))
    report("data", {"megapixels": edge * edge / 1e6, "instances_an_image": instances})
    short, long = sizes.train_edges_px
    scale = [
        *(f"datamodule.train_short_edge_px=[{short},{short}]",),
        *(f"datamodule.train_long_edge_px={long}",),
        *(f"datamodule.predict_short_edge_px={short}", f"datamodule.predict_long_edge_px={long}"),
    ]
    for suffix, options in ((".jpg", {"quality": 90}), (".png", {"compress_level": 1})):
        kind, folder_name = suffix[1:], f"images_{suffix[1:]}"
        named = load_inputs.write_coco(
            folder / f"{kind}.json", 2, 2 * instances, sizes_hw=[(edge, edge)], suffix=suffix
        )
        (folder / folder_name).mkdir()
        for name, *_ in named:
            Image.fromarray(pixels).save(folder / folder_name / name, **options)
        given = (f"annotations={kind}.json", f"images={folder_name}")
        words = train_words(f"{kind}.json", folder_name, 1, *scale, f"name={kind}")
        words.remove("trainer.limit_val_batches=0")
        report(f"train_{kind}", measure("train", *words, folder=folder))
        words = (f"checkpoint=outputs/{kind}/best.ckpt", f"images={folder_name}", *scale)
        words = (*words, "trainer=cpu", "num_torch_threads=1", f"predictions=store_{kind}")
        report(f"predict_{kind}", measure("predict", *words, "module.min_score=0", folder=folder))
        _decide(folder, kind, given, report)


def _decide(folder: Path, kind: str, given: Iterable[str], report: Report) -> None:
    """Post-process, score and report the predictions, on a fixed raster and on the image's own."""
    store = (f"predictions=store_{kind}", *given, "cache_dir=.cache", "postprocess=default")
    store = (*store, "postprocess.score_threshold=0")  # of a model that has learnt nothing
    for raster, competition in (("fixed", "imaterialist_2019"), ("native", "coco")):
        words = (*store, f"competition={competition}")
        output = "output=results.json" if raster == "native" else "output=submission.csv"
        name = f"postprocess_{kind}_{raster}_raster"
        report(name, measure("postprocess", *words, output, folder=folder))
        name = f"report_{kind}_{raster}_raster"
        report(name, measure("report", *words, "output=report.html", folder=folder))


STAGES: Mapping[str, Callable[[Path, Sizes, Report], None]] = {
    "csv": csv_stage,
    "coco": coco_stage,
    "store": store_stage,
    "sweep": sweep_stage,
    "search": search_stage,
    "image": image_stage,
}


@contextlib.contextmanager
def _temporary_folder(prefix: str, parent: Path | None) -> Iterator[Path]:
    """Make a folder that is removed at the end, after SIGTERM too."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return round(sum(one.stat().st_size for one in files) / 1e6, 2)


def run(
    *,
    stages: Iterable[str] | None = None,
    output_dir: Path | None = None,
    sizes: Sizes | None = None,
    figures: dict[str, Figures] | None = None,
    on_stage: Callable[[], None] = lambda: None,
) -> dict[str, Figures]:
    """Run stages, each in a temporary folder that is removed after it, however it ends.

    Args:
        stages: Their names; None: all.
        output_dir: Where the temporary folders are made; None: where the system has them.
        sizes: How much; None: what README.md reports.
        figures: Those of other stages, to which these are added.
        on_stage: Called when the figures of a stage have been added.
    """
    chosen = list(STAGES if stages is None else stages)
    if unknown := sorted(set(chosen).difference(STAGES)):
        sys.exit(f"error: --stage must be one of {', '.join(STAGES)}, got {unknown[0]}")
    if output_dir is not None:
        output_dir.mkdir(parents=True, exist_ok=True)
    figures = {} if figures is None else figures
    for stage in chosen:
        found: Figures = {"date": datetime.date.today().isoformat()}

        def report(name: str, measured: Figures, found: Figures = found) -> None:
            found[name] = measured
            line = summary(measured) if "cpu_s" in measured else str(measured)
            print(f"{name:28}{line}", flush=True)

        with _temporary_folder(f"load_{stage}_", output_dir) as folder:
            STAGES[stage](folder, sizes or Sizes(), report)
        figures[stage] = found
        on_stage()
    return figures


TINY = Sizes(
    csv_instances=30,
    csv_long_edge_px=300,
    csv_validation=1,
    coco_images=8,
    coco_instances=40,
    coco_validation=2,
    store_images=6,
    candidates=20,
    small_store_images=6,
    jobs=(2, 2, 1),
    trials=6,
    image_edge_px=300,
    image_instances=4,
    train_edges_px=(64, 96),
    pause_s=0.05,
)
"""A size at which the stages are tested."""
