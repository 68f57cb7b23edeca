"""What the tests of the lab's page need: a store with hostile names, the server, the browser."""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from src.postprocess.pipeline import coco_results
from src.predictions.store import PredictionStoreWriter
from tests.helpers.candidates import make_settings
from tests.helpers.lab_data import CATEGORIES, SIZE_HW, make_image

ROOT = Path(__file__).resolve().parents[2]
NUM_IMAGES = 60
# Each would show, or run, if it were taken for markup, a template or a formula.
CATEGORY_NAMES = {
    1: "<img src=x onerror=\"window.wasHacked='category'\">",
    5: "</select><script>window.wasHacked='script'</script> {{ 7 * 7 }}",
    9: "=HYPERLINK(\"x\") & 'wild dog'",
}
HOSTILE_IMAGE = "<svg onload=\"window.wasHacked='image'\"> {{ 7 * 7 }}.png"
START_S = 180  # for the server to print its address, on a machine that is busy
NO_BROWSER = "needs a browser: apt-get install chromium chromium-driver"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


# The texts that are shown with too little contrast to what lies behind them (WCAG 2.2, 1.4.3).
CONTRASTS = """
const parse = (text) => {
  const numbers = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
  const isShare = text.startsWith("color(");
  return [...numbers.slice(0, 3).map((one) => (isShare ? 255 * one : one)), numbers[3] ?? 1];
};
const light = (rgb) => rgb.slice(0, 3).map((value) => value / 255)
  .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
  .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
const over = (top, below) => top.slice(0, 3)
  .map((one, at) => one * top[3] + below[at] * (1 - top[3])).concat(1);
const behind = (node) => {
  if (!node) return [255, 255, 255, 1];
  const color = parse(getComputedStyle(node).backgroundColor);
  return color[3] === 1 ? color : over(color, behind(node.parentElement));
};
const opacity = (node) => (node ? getComputedStyle(node).opacity * opacity(node.parentElement) : 1);
const EXEMPT = "svg, :disabled, [aria-disabled=true], .hidden, .skip, figcaption";
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  const text = walker.currentNode.textContent.trim();
  if (!text || !node.checkVisibility() || node.closest(EXEMPT)) continue;
  const back = behind(node);
  const color = parse(getComputedStyle(node).color);
  color[3] *= opacity(node);
  const [a, b] = [light(over(color, back)), light(back)].sort((x, y) => y - x);
  const contrast = (a + 0.05) / (b + 0.05);
  if (contrast < 4.5) found.push(`${contrast.toFixed(2)}: ${node.outerHTML.slice(0, 90)}`);
}
return [...new Set(found)];
"""


def image_name(number: int) -> str:
    return HOSTILE_IMAGE if number == NUM_IMAGES - 1 else f"{number:03d}.png"


@dataclass(frozen=True, slots=True)
class PageData:
    """A store, its ground truth and the images."""

    predictions: Path
    annotations: Path
    images: Path


def write_page_data(folder: Path) -> PageData:
    """Write a small store of own data, in which names of categories and of an image are hostile."""
    data = PageData(folder / "store", folder / "truth.json", folder / "images")
    data.images.mkdir(parents=True)
    everything = make_settings(score_threshold=0.0, nms_iou_threshold=1.0)
    own_ids = dict(zip(CATEGORIES, CATEGORY_NAMES, strict=True))
    height, width = SIZE_HW
    annotations: list[dict[str, Any]] = []
    with PredictionStoreWriter(
        data.predictions, category_ids=list(CATEGORY_NAMES), settings={}
    ) as writer:
        for number in range(NUM_IMAGES):
            candidates, real = (
                replace(
                    made,
                    image_id=image_name(number),
                    category_ids=np.array(
                        [own_ids[one] for one in made.category_ids.tolist()], dtype=np.int16
                    ),
                )
                for made in make_image(number)
            )
            writer.add(candidates)
            found = coco_results(real, everything, image_number=number + 1)
            annotations += [{**one, "iscrowd": 0} for one in found]
            shade = np.full((height, width, 3), 40 + 3 * number, dtype=np.uint8)
            Image.fromarray(shade).save(data.images / image_name(number))
    content = {
        "images": [
            {"id": n + 1, "file_name": image_name(n), "height": height, "width": width}
            for n in range(NUM_IMAGES)
        ],
        "categories": [{"id": id_, "name": name} for id_, name in CATEGORY_NAMES.items()],
        "annotations": [{"id": n, "area": 1, **one} for n, one in enumerate(annotations, start=1)],
    }
    data.annotations.write_text(json.dumps(content))
    return data


class RunningLab(NamedTuple):
    """A process of ``python -m src.lab`` that serves its page."""

    address: str
    process: subprocess.Popen[bytes]


@contextmanager
def run_lab(*arguments: object) -> Iterator[RunningLab]:
    """Run ``python -m src.lab`` for the duration of a ``with`` block."""
    command = [sys.executable, "-m", "src.lab", "open_browser=false", *map(str, arguments)]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors) as lab,
    ):
        try:
            yield RunningLab(_address(lab, errors), lab)
        finally:
            lab.send_signal(signal.SIGTERM)
            try:
                lab.wait(timeout=10)
            except subprocess.TimeoutExpired:
                lab.kill()


def _address(lab: subprocess.Popen[bytes], errors: Any) -> str:
    assert lab.stdout is not None
    with selectors.DefaultSelector() as waiting:
        waiting.register(lab.stdout, selectors.EVENT_READ)
        line = lab.stdout.readline().decode() if waiting.select(START_S) else ""
    found = re.search(r"http://\S+", line)
    if found is None:
        errors.seek(0)
        raise AssertionError(f"the lab printed no address: {line} {errors.read().decode()}")
    return found[0]


def find_browser() -> tuple[str, str] | None:
    """Return the programs of the browser and of its driver, None where one is missing."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return None if browser is None or driver is None else (browser, driver)


@contextmanager
def open_browser(profile: Path) -> Iterator[Any]:
    """Run a headless Chromium, by its WebDriver, for the duration of a ``with`` block."""
    from selenium import webdriver

    found = find_browser()
    assert found is not None, NO_BROWSER
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    downloads = {"download.default_directory": str(profile / "downloads")}
    options.add_experimental_option("prefs", downloads)
    for switch in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={profile}",
        "window-size=1440,900",
    ):
        options.add_argument(f"--{switch}")
    os.environ.setdefault("SE_OFFLINE", "true")  # the driver is here: nothing is looked for
    os.environ.setdefault("SE_AVOID_STATS", "true")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
    try:
        yield driver
    finally:
        driver.quit()
