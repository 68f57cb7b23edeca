"""The lab on a validation set: from a moved slider to the image and to the score.

    python -m benchmarks.lab            # --quick: that it runs, on a few images

450 images of 12 megapixels with 100 candidates each, with ground truth. Each slider moves to
values that it had not before; the page's requests are sent to a running server as the page sends
them. Milliseconds are wall time of one request, medians; CPU milliseconds are those of the process,
which count where other work shares the machine. Between two moves the server has the time that a
hand takes: ``pause_s``.

Where there is a browser (Chromium, headless), the page itself is measured as well: wall time from
the input event to the redrawn image, to the score on the page, and to its interval.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.threshold_grid import make_store
from src.lab.guard import Guard
from src.lab.server import LabApp, open_server
from src.postprocess.settings import PostprocessSettings
from src.rle import format_rle
from src.tuning.session import open_session
from tests.helpers.lab_page import NO_BROWSER, find_browser, open_browser
from tests.helpers.lab_server import make_inputs, make_workspace

START_NAME = "winner_all_classes"
START = PostprocessSettings.preset(START_NAME)
# Values of each slider, none of which the start has; others are one key that changes.
MOVES: dict[str, list[dict[str, Any]]] = {
    "score_threshold": [{"score_threshold": k / 100} for k in range(51, 60)],
    "mask_threshold": [{"mask_threshold": k / 100} for k in range(46, 55)],
    "nms_iou_threshold": [{"nms_iou_threshold": k / 100} for k in range(31, 40)],
    "min_area_px": [{"min_area_px": k} for k in range(30, 120, 10)],
    "remove_categories": [{"remove_categories": [k]} for k in range(5)],
    "suppress_overlaps": [
        {"suppress_overlaps": "all", "score_threshold": k / 100} for k in range(50, 55)
    ],
    "max_per_image": [{"max_per_image": k} for k in range(10, 5, -1)],
    "max_per_class": [{"max_per_class": k} for k in range(1, 4)],
    "score_threshold_of_a_category": [
        {"score_threshold_per_class": {"1": k / 100}} for k in range(40, 49)
    ],
    "mask_threshold_of_a_category": [
        {"mask_threshold_per_class": {"1": k / 100}} for k in range(40, 49)
    ],
    "soft_nms": [{"nms_kind": "soft_linear", "soft_nms_min_score": k / 100} for k in range(50, 55)],
}

# Sliders that move in the browser, each from the settings at the start; a choice is made before.
BROWSER_MOVES: dict[str, tuple[str | None, str, list[float]]] = {
    "score_threshold": (None, "score_threshold", [k / 100 for k in range(61, 69)]),
    "mask_threshold": (None, "mask_threshold", [k / 100 for k in range(36, 44)]),
    "nms_iou_threshold": (None, "nms_iou_threshold", [k / 100 for k in range(41, 49)]),
    "min_area_px": (None, "min_area_px", [*range(130, 170, 5)]),
    "suppress_overlaps": ("all", "score_threshold", [k / 100 for k in range(61, 69)]),
}
BROWSER_PAUSE_S = 1.2
MEASURES = ("image", "score", "interval")
# The events that a hand makes: a choice is clicked, a slider is dragged to a value.
CHOOSE = """
const choices = [...document.querySelectorAll("[data-key=suppress_overlaps] label")];
choices.find((choice) => choice.textContent === arguments[0]).click();
"""
MOVE = """
const slider = document.querySelector(`[data-key=${arguments[0]}] input[type=range]`);
slider.value = arguments[1];
slider.dispatchEvent(new Event("input", { bubbles: true }));
"""
READ_MEASURES = """
return performance.getEntriesByType("measure").map(({ name, duration }) => [name, duration]);
"""


def write_truth(path: Path, ground_truth: list[Any]) -> None:
    """Write the instances as a train.csv on the raster."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "EncodedPixels", "Height", "Width", "ClassId"])
        for instances in ground_truth:
            texts = format_rle(instances.bitmasks.to_rle())
            for text, key in zip(texts, instances.class_keys, strict=True):
                rows.writerow([instances.image_id, text, 512, 512, key])


class Page:
    """Sends the requests of a page."""

    def __init__(self, port: int) -> None:
        self._port, self._sequence = port, 0

    def get(self, path: str) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port)
        connection.request("GET", path, headers={"X-Lab": "1"})
        return connection.getresponse().read()

    def post(self, path: str, **body: Any) -> Any:
        self._sequence += 1
        connection = HTTPConnection("127.0.0.1", self._port)
        text = json.dumps({"client": "bench", "sequence": self._sequence, **body})
        connection.request("POST", path, body=text, headers={"X-Lab": "1"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        if answer.status != 200:
            raise RuntimeError(content)
        return content


def timed(task: Callable[..., Any], *given: Any, **named: Any) -> tuple[float, float]:
    """Return the wall and the CPU milliseconds of a task."""
    wall, cpu = time.perf_counter(), time.process_time()
    task(*given, **named)
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def medians(pairs: list[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = zip(*pairs, strict=True)
    return {"ms": round(statistics.median(wall), 1), "cpu_ms": round(statistics.median(cpu), 1)}


def measure_browser(address: str, *, pause_s: float) -> dict[str, Any] | None:
    """Return milliseconds from the input event, medians by slider; None where there is no browser.

    Args:
        address: Of a page that shows the settings at the start.
        pause_s: Between two moves of a slider.
    """
    if find_browser() is None:
        print(f"the page is not measured: {NO_BROWSER}", file=sys.stderr)
        return None
    from tests.helpers.page import Page as BrowserPage  # which needs selenium

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as profile, open_browser(Path(profile)) as driver:
        page = BrowserPage(driver, address)
        for name, (choice, key, values) in BROWSER_MOVES.items():
            page.open("#s=e30")  # the default settings, whatever an earlier slider has left
            page.choose("#preset", START_NAME)
            if choice is not None:
                driver.execute_script(CHOOSE, choice)
            page.settle()
            time.sleep(pause_s)
            driver.execute_script("performance.clearMeasures()")
            for value in values:
                driver.execute_script(MOVE, key, value)
                time.sleep(pause_s)
            page.settle()
            measured = driver.execute_script(READ_MEASURES)
            found[name] = {"moves": len(values)}
            for one in MEASURES:
                durations = [duration for label, duration in measured if label == f"lab:{one}"]
                if len(durations) < len(values):  # a slow answer is dropped by the next move
                    found[name][f"{one}s_shown"] = len(durations)
                found[name][f"{one}_ms"] = (
                    round(statistics.median(durations), 1) if durations else None
                )
    return found


def run(
    *,
    images: int = 450,
    candidates: int = 100,
    pause_s: float = 1.0,
    browser_pause_s: float = BROWSER_PAUSE_S,
) -> dict[str, Any]:
    """Measure the first page, each slider, the interval, the open image, and all in a browser.

    Args:
        images: In the store.
        candidates: Of each image.
        pause_s: Between two moves of a slider.
        browser_pause_s: The same in the browser.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, ground_truth = make_store(folder / "store", images, candidates)
        write_truth(folder / "train.csv", ground_truth)
        inputs = make_inputs(folder / "store", folder / "train.csv")
        apps: list[Any] = []
        with (
            open_session(inputs, remember=True) as session,
            open_server("127.0.0.1", 0, lambda *given: apps[0](*given)) as server,
        ):
            opened = time.perf_counter()
            workspace = make_workspace(session, inputs, folder, num_resamples=10_000)
            apps.append(LabApp(workspace, Guard("127.0.0.1", server.port)))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            page, start = Page(server.port), START.to_dict()
            page.get("/")
            page.get("/api/lab")
            first_page_s = time.perf_counter() - opened
            first = timed(page.post, "/api/score", settings=start, baseline=start)
            apps[0].evaluation.warm(START, lambda: None)  # as it does by itself after some seconds
            scores, views = {}, {}
            for key, moves in MOVES.items():
                found = []
                for change in moves:
                    settings = START.replace(**change).to_dict()
                    body = {"settings": settings, "baseline": start}
                    found.append(timed(page.post, "/api/score", **body))
                    time.sleep(pause_s)
                scores[key] = medians(found)
            for ghosts in (False, True):
                page.post("/api/image", settings=start, index=0, ghosts=ghosts)
                for key in ("score_threshold", "mask_threshold", "nms_iou_threshold"):
                    found = []
                    for change in MOVES[key]:
                        body = {"settings": START.replace(**change).to_dict(), "index": 0}
                        found.append(timed(page.post, "/api/image", ghosts=ghosts, **body))
                    views[f"{key}{'_with_ghosts' if ghosts else ''}"] = medians(found)
            other = START.replace(**MOVES["score_threshold"][0]).to_dict()
            interval = [
                timed(page.post, "/api/interval", settings=other, baseline=start) for _ in range(5)
            ]
            browser = measure_browser(f"http://127.0.0.1:{server.port}/", pause_s=browser_pause_s)
            server.shutdown()
            apps[0].close()
    return {
        "images": images,
        "candidates_an_image": candidates,
        "first_page_s": round(first_page_s, 2),
        "first_score_s": round(first[0] / 1e3, 2),
        "score_after_a_move_of": scores,
        "image_after_a_move_of": views,
        "interval": medians(interval),
        **({} if browser is None else {"in_the_browser_after_a_move_of": browser}),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="6 images of 20 candidates")
    small = {"images": 6, "candidates": 20, "pause_s": 0.05, "browser_pause_s": 0.4}
    print(json.dumps(run(**(small if parser.parse_args().quick else {})), indent=2))
