"""The report's page in a browser: filters, links, layers, zoom; nothing of a file is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.lab_page import (
    CATEGORY_NAMES,
    CONTRASTS,
    HOSTILE_IMAGE,
    NUM_IMAGES,
    ROOT,
    write_page_data,
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """Pages of hostile names, with ground truth and without."""
    folder = tmp_path_factory.mktemp("report")
    data = write_page_data(folder / "data")
    written = {}
    for name, truth in (("scored", [f"annotations={data.annotations}"]), ("alone", [])):
        written[name] = folder / f"{name}.html"
        command = [sys.executable, "-m", "src.report", f"predictions={data.predictions}", *truth]
        options = ["cache_dir=null", "num_resamples=20", "num_worst=2", "num_best=0"]
        more = [
            f"images={data.images}",
            f"output={written[name]}",
            "postprocess.score_threshold=0.6",
        ]
        done = subprocess.run([*command, *options, *more], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return written


@pytest.fixture
def page(driver, pages):
    from tests.helpers.report_page import ReportPage

    driver.set_window_size(1440, 900)
    driver.get_log("browser")
    made = ReportPage(driver, pages["scored"])
    yield made
    assert [one for one in driver.get_log("browser") if one["level"] == "SEVERE"] == []


def test_all_images_are_there_page_by_page_and_sorted(page):
    page.open()
    assert page.count() == f"{NUM_IMAGES} images"
    first = page.scores()
    assert len(first) == 24
    assert first == sorted(first)
    names = page.names()
    for _ in range(2):
        page.click("#next-page")
        names += page.names()
    assert len(set(names)) == NUM_IMAGES
    assert page.fragment() == "#page=3"
    page.choose("#sort", "best")
    assert page.scores() == sorted(page.scores(), reverse=True)
    assert page.fragment() == "#sort=best"


def test_names_of_files_are_text(page):
    page.open()
    assert page.run("return window.wasHacked") is None
    page.run(
        "const box = document.querySelector('#name'); box.value = 'svg onload';"
        "box.dispatchEvent(new Event('input'))"
    )
    assert page.names() == [HOSTILE_IMAGE]
    page.click("#cards button")
    assert page.run("return document.querySelector('#viewer-title').textContent") == HOSTILE_IMAGE
    options = page.run(
        "return [...document.querySelectorAll('#category option')].map((one) => one.textContent)"
    )
    assert set(options[1:]) == {f"{key} {name}" for key, name in CATEGORY_NAMES.items()}
    assert page.run("return window.wasHacked") is None


def test_scripts_that_a_page_is_given_do_not_run(page):
    """The policy has the hash of the page's own script alone."""
    page.open()
    page.run(
        "const script = document.createElement('script');"
        "script.textContent = 'window.wasHacked = 1';"
        "document.body.append(script);"
        "const image = document.createElement('div'); image.innerHTML ="
        " '<img src=x onerror=\"window.wasHacked = 2\">'; document.body.append(image)"
    )
    assert page.run("return window.wasHacked") is None
    page.driver.get_log("browser")


def test_links_of_bars_and_classes_choose_images(page):
    page.open()
    links = page.run(
        "return [...document.querySelectorAll('.chart a, table a')]"
        ".map((one) => one.getAttribute('href'))"
    )
    kinds = {re.sub(r"=[^&]*", "", link) for link in links}
    assert kinds >= {"#score", "#error", "#category", "#true&predicted", "#true&error"}
    for start in ("#score=", "#error=missed", "#true=5&error"):
        link = next(one for one in links if one.startswith(start))
        page.follow(link)
        page.wait("return document.activeElement.id === 'images-title'")
        assert 0 < int(page.count().split()[0]) < NUM_IMAGES
        assert set(page.fragment()[1:].split("&")) == set(link[1:].split("&"))
    page.open("#category=5&error=missed")
    values = page.run(
        "return ['#category', '#error'].map((one) => document.querySelector(one).value)"
    )
    assert values == ["5", "missed"]
    assert page.count().endswith(f"of {NUM_IMAGES} images")
    page.click("#reset")
    assert page.count() == f"{NUM_IMAGES} images"
    assert page.fragment() == ""


def test_a_cell_of_the_confusion_table_agrees_with_its_images(page):
    page.open()
    cells = page.run(
        "return [...document.querySelectorAll('.confusion td a')]"
        ".map((one) => [one.getAttribute('href'), Number(one.textContent)])"
    )
    link, number = next(cell for cell in cells if cell[0].endswith("error=missed"))
    page.open(link)
    found = re.search(r"true=(\d+)", link)
    assert found is not None
    total, images = page.run(
        """
        const data = JSON.parse(document.querySelector("#report-data").textContent);
        const own = data.classes.findIndex(({ id }) => id === arguments[0]);
        const kind = data.kinds.indexOf("missed");
        const counts = data.images.map(({ pairs }) => pairs
          .filter((one) => one[0] === kind && one[1] === own)
          .reduce((sum, one) => sum + one[4], 0));
        return [counts.reduce((a, b) => a + b), counts.filter(Boolean).length];
        """,
        found[1],
    )
    assert total == number
    assert page.count() == f"{images} of {NUM_IMAGES} images"


def test_layers_are_switched_and_kept(page):
    page.open("#sort=best")  # a fragment scrolls to the images
    page.wait("return document.querySelectorAll('.shape').length > 0")
    shown = "return getComputedStyle(document.querySelector(arguments[0])).display !== 'none'"
    layers = {
        "image": ".photo",
        "truth": ".pane.truth",
        "detections": ".pane.detections",
        "masks": ".shape",
        "labels": ".labels",
    }
    assert all(page.run(shown, selector) for selector in layers.values())
    assert not page.run(shown, ".box")
    for layer, selector in layers.items():
        page.run("document.querySelector(`#layers [value=${arguments[0]}]`).click()", layer)
        assert not page.run(shown, selector), layer
        page.run("document.querySelector(`#layers [value=${arguments[0]}]`).click()", layer)
    page.run("document.querySelector('#layers [value=boxes]').click()")
    assert page.run(shown, ".box")
    page.open("#hide=masks,labels")
    page.wait("return document.querySelectorAll('.shape').length > 0")
    assert not page.run(shown, ".shape")
    assert page.run(shown, ".box")


def test_labels_have_confidence_and_iou_and_categories_their_colour(page):
    page.open("#sort=best")
    page.wait("return document.querySelectorAll('.pane.detections .labels text').length > 3")
    texts = page.run(
        "return [...document.querySelectorAll('.pane.detections .labels text')]"
        ".map((one) => one.textContent)"
    )
    assert [one for one in texts if re.search(r" 0\.\d\d IoU [01]\.\d\d$", one)]
    colours = page.run(
        "const data = JSON.parse(document.querySelector('#report-data').textContent);"
        "const fills = [...document.querySelectorAll('.shape')]"
        ".map((one) => one.getAttribute('fill'));"
        "return [data.classes.map(({ color }) => color), [...new Set(fills)]]"
    )
    assert set(colours[1]) <= set(colours[0])
    assert len(set(colours[0])) == 3


def test_an_image_is_enlarged_by_wheel_keys_and_buttons(page):
    from selenium.webdriver.common.keys import Keys

    page.open()
    page.click("#cards button")
    view = (
        "return [...document.querySelectorAll('#viewer .drawing')]"
        ".map((one) => one.getAttribute('viewBox'))"
    )
    whole = page.run(view)
    assert len(set(whole)) == 1
    page.click("#zoom-in")
    closer = page.run(view)
    assert len(set(closer)) == 1, "both sides move together"
    assert float(closer[0].split()[2]) < float(whole[0].split()[2])
    page.press(Keys.ARROW_RIGHT)
    assert float(page.run(view)[0].split()[0]) > float(closer[0].split()[0])
    page.press("0")
    assert page.run(view) == whole
    page.turn_wheel("#viewer .drawing", -300)
    page.wait("return document.querySelector('#zoom').textContent !== '100%'")
    title = page.run("return document.querySelector('#viewer-title').textContent")
    assert f"image={title}" in page.fragment()
    page.press("n")
    assert page.run("return document.querySelector('#viewer-title').textContent") != title
    page.press(Keys.ESCAPE)
    page.wait("return !document.querySelector('#viewer').open")
    assert "image=" not in page.fragment()
    page.open(f"#image={title}")
    assert page.run("return document.querySelector('#viewer').open")


def test_predictions_alone_have_confidences_and_no_errors(page, pages):
    alone = type(page)(page.driver, pages["alone"])
    alone.open()
    assert alone.count() == f"{NUM_IMAGES} images"
    assert alone.run("return document.querySelector('#error')") is None
    link = alone.run("return document.querySelector('.chart a').getAttribute('href')")
    alone.open(link)
    assert re.fullmatch(rf"\d+ of {NUM_IMAGES} images", alone.count())
    alone.open("#sort=unsure")
    values = alone.scores()
    assert values == sorted(values)
    assert alone.run("return document.querySelectorAll('.pane.truth').length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_and_controls_a_name(page, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        page.open()
        assert page.run(CONTRASTS) == []
        selector = "button, input, select, [tabindex='0'], .chart a, nav, form"
        nodes = [
            one for one in page.driver.find_elements("css selector", selector) if one.is_displayed()
        ]
        assert len(nodes) > 30
        assert [
            one.get_attribute("outerHTML")[:80] for one in nodes if not one.accessible_name
        ] == []
        page.click("#cards button")
        assert page.run(CONTRASTS) == []
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_narrow_window_has_no_scroll_bar_to_the_side(page):
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        page.open()
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
