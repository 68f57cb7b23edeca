"""Work of the page that takes long, or that outlives it: COCO AP, a sweep, a killed server."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from src.export_coco import main as export_coco
from tests.helpers.lab_page import CATEGORY_NAMES, NUM_IMAGES, run_lab

pytestmark = pytest.mark.browser


def coco_map(page: Any) -> float:
    page.wait("document.querySelector('#coco table') !== null")
    rows = [row.text.split() for row in page.find_all("#coco tbody tr")]
    return float(next(row for row in rows if row[0] == "AP")[1])


def reference_map(annotations: Path, results: Path) -> float:
    """Return pycocotools' average precision of masks."""
    entries, content = json.loads(results.read_text()), json.loads(annotations.read_text())
    listed = content["annotations"]  # one has no pixel, and is no instance here
    content["annotations"] = [one for one in listed if mask.area(one["segmentation"]) > 0]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        found = truth.loadRes([{k: v for k, v in one.items() if k != "bbox"} for one in entries])
        evaluation = COCOeval(truth, found, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.slow
def test_coco_ap_is_computed_on_request_and_belongs_to_its_settings(
    page: Any, lab: Any, run: Any, tmp_path: Path
) -> None:
    assert page.text("#coco") == ""
    page.click("#coco-button")
    shown = coco_map(page)
    results = tmp_path / "results.json"
    data = (f"predictions={lab.data.predictions}", f"annotations={lab.data.annotations}")
    run(export_coco, *data, f"output={results}")
    assert shown == pytest.approx(reference_map(lab.data.annotations, results), abs=5e-5)
    page.type_number("score_threshold", 0.9)
    assert page.text("#coco") == ""  # it was that of other settings
    page.click("#coco-button")
    assert coco_map(page) < shown
    page.press("p")  # the baseline changes nothing of it
    page.settle()
    assert coco_map(page) < shown


def test_a_sweep_is_cancelled_and_what_it_found_stays(page: Any) -> None:
    page.press("s")
    for axis in "xy":
        field = page.find(f"#sweep-{axis}-values")
        field.clear()
        field.send_keys(", ".join(f"{k / 20 + 0.01:.2f}" for k in range(20)))
    page.click("#sweep-start")
    page.wait("document.querySelector('#heat button:enabled') !== null")
    page.click("#sweep-cancel")
    page.wait("document.querySelector('#sweep-status').textContent === 'Cancelled.'")
    assert not page.find("#sweep-cancel").is_enabled()
    found = page.find_all("#heat button:enabled")
    assert 20 <= len(found) < 400
    wanted = float(found[0].get_attribute("title"))
    found[0].click()
    page.settle()  # the score is not kept waiting
    assert page.score == wanted
    assert len(page.find_all("#heat button:enabled")) == len(found)


def picture(page: Any) -> str:
    page.driver.execute_async_script("requestAnimationFrame(() => arguments[0]())")
    return page.driver.execute_script(
        "return document.querySelector('#prediction-pane canvas').toDataURL()"
    )


def test_the_image_is_zoomed_moved_and_shown_whole_again(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    page.press("l")  # labels move apart as there is room
    canvas = page.find("#prediction-pane canvas")
    whole = picture(page)
    page.press("-")
    assert picture(page) == whole  # nothing is smaller than all of it
    page.press("+")
    larger = picture(page)
    assert larger != whole
    ActionChains(page.driver).drag_and_drop_by_offset(canvas, 40, 30).perform()
    ActionChains(page.driver).move_by_offset(0, 400).perform()  # off the image: nothing is marked
    moved = picture(page)
    assert moved not in (whole, larger)
    page.press("0")
    assert picture(page) == whole
    origin = ScrollOrigin.from_element(canvas)
    ActionChains(page.driver).scroll_from_origin(origin, 0, -200).perform()
    assert picture(page) != whole
    page.press("0")
    assert picture(page) == whole


def test_the_cross_validated_figure_of_a_search_stands_by_its_settings(page: Any) -> None:
    assert not page.find("#searched").is_displayed()
    page.choose("#preset", "found")
    page.settle()
    assert page.text("#searched") == (
        "Search found: cross-validated 0.5712, +0.0123 over the winner's settings "
        "(\N{MINUS SIGN}0.0045 to +0.0291), within noise"
    )
    assert "in-sample" in page.text("#in-sample")
    page.type_number("score_threshold", 0.46)  # settings that no search found
    assert not page.find("#searched").is_displayed()
    page.click("#undo")
    page.settle()
    assert page.find("#searched").is_displayed()


@pytest.mark.slow
def test_the_state_outlives_a_killed_server(driver: Any, lab: Any, tmp_path: Path) -> None:
    from tests.helpers.page import Page

    arguments = (
        f"predictions={lab.data.predictions}",
        f"ground_truth={lab.data.annotations}",
        f"images={lab.data.images}",
        f"cache_dir={tmp_path / 'cache'}",
        f"session_dir={tmp_path / 'sessions'}",
    )
    with run_lab(*arguments) as first:
        page = Page(driver, first.address)
        page.open()
        page.choose("#preset", "winner")
        page.settle()
        page.press("p")
        page.type_number("score_threshold", 0.33)
        page.press("3")
        page.driver.execute_script("document.querySelector('#next').click()")
        before = page.score, page.image, page.text("#difference b")
        page.wait(
            "performance.getEntriesByType('resource').some(e =>"
            " e.name.endsWith('/api/session') && e.responseEnd > 0)"
        )
        state = [path.read_bytes() for path in (tmp_path / "sessions").iterdir()]
        assert len(state) == 1
        first.process.kill()
        first.process.wait()
        page.find("#next").click()
        page.wait("document.querySelector('#messages').textContent !== ''")
        assert "Start python -m src.lab again" in page.text("#messages")
    with run_lab(*arguments) as second:
        page = Page(driver, second.address)
        page.open()
        assert page.messages()  # of the requests to the killed server
        assert page.find("#offer").is_displayed()
        assert page.number("score_threshold") == 0.5
        page.click("#resume")
        page.settle()
        assert page.number("score_threshold") == 0.33
        page.wait(f"document.querySelector('#image-name').textContent === '{before[1]}'")
        assert (page.score, page.image, page.text("#difference b")) == before
        assert page.find("#panes").get_attribute("data-layout") == "prediction"
        assert page.find("#baseline").get_property("value") == "winner"
        driver.get("about:blank")
    assert page.messages() == []


def test_without_ground_truth_everything_but_scores_works(
    driver: Any, lab: Any, tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    from tests.helpers.page import Page

    config_dir = tmp_path / "conf"
    (config_dir / "postprocess").mkdir(parents=True)
    with run_lab(
        f"predictions={lab.data.predictions}",
        f"images={lab.data.images}",
        f"session_dir={tmp_path / 'sessions'}",
        f"config_dir={config_dir}",
    ) as running:
        page = Page(driver, running.address)
        page.open()
        assert page.text("#in-sample") == "There is no ground truth: nothing is scored."
        for scored in ("#score", "#against", "#curve", "#errors", "#coco-button", "#order"):
            assert not page.find(scored).is_displayed()
        assert not page.find("#layout").is_displayed()
        assert page.find("#panes").get_attribute("data-layout") == "prediction"
        assert page.text("#image-score") == "no score"
        assert page.text("#shown") == f"{NUM_IMAGES} images"

        def detections() -> int:
            return int(page.text("#counts div:nth-last-child(2) dd").replace(",", ""))

        before, whole = detections(), picture(page)
        page.drag("score_threshold", -40)
        assert detections() > before
        page.type_number("mask_threshold", 0.8)
        assert picture(page) != whole
        for _ in range(2):
            page.press(Keys.CONTROL, "z")
            page.settle()
        assert detections() == before
        page.type_number("score_threshold", 0.8)
        page.press("x")
        page.click("#table-tab")
        page.wait("document.querySelectorAll('#table-panel [data-role=ghost]').length > 0")
        assert "is not above 0.8" in page.text("#table-panel")
        page.press(Keys.ARROW_RIGHT)
        assert page.image == "001.png"
        page.click("#grid-tab")
        page.find("#filter-text").send_keys("05")
        assert "candidates" in page.find("#grid .caption").text
        page.press("s")
        assert not page.find("#sweep-start").is_enabled()
        page.press("s")
        page.press("e")
        page.wait("document.querySelector('#command').value !== ''")
        command = page.find("#command").get_property("value")
        assert f" predictions={lab.data.predictions} " in command
        assert command.endswith(" postprocess.score_threshold=0.8")
        page.find("#write-name").send_keys("unscored", "\n")
        page.wait("document.querySelector('#out-message').textContent.startsWith('Written')")
        assert "score_threshold: 0.8" in (config_dir / "postprocess" / "unscored.yaml").read_text()
        behavior = {"behavior": "allow", "downloadPath": str(tmp_path)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
        page.click("#download-submission")
        lines = page.downloaded(tmp_path, "submission.csv").decode().splitlines()
        ids = {line.rpartition(",")[2] for line in lines[1:]}
        assert ids <= {"", *map(str, CATEGORY_NAMES)}  # none: an image without a detection
        page.click("#download-images")
        assert len(page.downloaded(tmp_path, "images.csv").splitlines()) == 11
        page.driver.get("about:blank")
    assert page.messages() == []
