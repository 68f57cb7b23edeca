"""The page of the lab in a real browser: settings, score, images, sweep, files."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest
import yaml

from src.cli.postprocess import main as postprocess
from tests.helpers.candidates import DEFAULT_STEPS
from tests.helpers.lab_page import CATEGORY_NAMES, HOSTILE_IMAGE, NUM_IMAGES

pytestmark = pytest.mark.browser


@pytest.fixture
def keys(driver: Any) -> Any:
    """Names of keys."""
    from selenium.webdriver.common.keys import Keys

    return Keys


def command_score(run: Any, lab: Any, tmp_path: Any, *overrides: str) -> float:
    """Return the score that the command prints for the lab's store."""
    data = lab.data
    printed = run(
        postprocess,
        f"predictions={data.predictions}",
        f"annotations={data.annotations}",
        f"images={data.images}",
        f"cache_dir={tmp_path / 'cache'}",
        f"output={tmp_path / 'submission.csv'}",
        *overrides,
    )
    return json.loads(printed.splitlines()[-1])["competition_map"]


def test_it_shows_the_score_of_the_command(page, lab, run, tmp_path):
    page.driver.execute_script("location.hash = ''")
    page.open()
    assert page.score == command_score(run, lab, tmp_path, "postprocess=winner_all_classes")
    assert page.text("#interval").startswith("95% interval 0.")
    assert page.text("#verdict") == "within noise"


def test_a_dragged_slider_gives_the_score_of_the_command(page, lab, run, tmp_path):
    page.choose("#preset", "winner_all_classes")
    page.settle()
    page.drag("score_threshold", -40)
    page.drag("nms_iou_threshold", 60)
    score_threshold, nms = page.number("score_threshold"), page.number("nms_iou_threshold")
    assert score_threshold < 0.45
    assert nms > 0.4
    assert page.score == command_score(
        run,
        lab,
        tmp_path,
        "postprocess=winner_all_classes",
        f"postprocess.score_threshold={score_threshold}",
        f"postprocess.nms_iou_threshold={nms}",
    )


def test_every_setting_can_be_changed_and_is_scored(page):
    page.type_number("score_threshold", 0.3)
    page.click("[data-key=suppress_overlaps] label:nth-child(3)")  # all
    page.settle()
    page.find("[data-key=nms_kind] select").send_keys("soft_gaussian")
    page.settle()
    page.click("[data-key=score_threshold_per_class] summary")
    page.click("[data-key=score_threshold_per_class] .row input[type=checkbox]")
    page.settle()
    page.click("[data-key=remove_categories] summary")
    page.find_all("[data-key=remove_categories] input[type=checkbox]")[-1].click()
    page.settle()
    page.click("[data-key=steps] summary")
    page.click("[data-key=steps] li:last-child .up")
    page.settle()
    page.click("[data-key=max_per_class] input[type=checkbox]")
    page.settle()
    assert page.text("#settings-error") == ""
    settings = page.driver.execute_async_script(
        """
        const done = arguments[0];
        const { fromFragment } = await import("/static/state.js");
        done(fromFragment(location.hash).settings);
        """
    )
    first = next(iter(CATEGORY_NAMES))
    assert settings == {
        "score_threshold": 0.3,
        "score_threshold_per_class": {str(first): 0.3},
        "suppress_overlaps": "all",
        "nms_kind": "soft_gaussian",
        "remove_categories": [9],
        "max_per_class": 50,
        "steps": [*DEFAULT_STEPS[:-2], "min_area", "suppress_overlaps"],
    }


def test_a_value_that_is_not_legal_is_refused_with_the_reason(page):
    page.driver.execute_script("document.querySelector('#control-min_area_px').step = 'any'")
    field = page.find("#control-min_area_px")
    field.clear()
    field.send_keys("1.5", "\t")
    page.wait("document.querySelector('#settings-error').textContent !== ''")
    assert "min_area_px must be" in page.text("#settings-error")
    page.type_number("min_area_px", 3)
    assert page.text("#settings-error") == ""
    assert any("400" in message for message in page.messages())  # of the refused requests


def test_undo_and_redo(page, keys):
    before, score = page.number("score_threshold"), page.score
    assert not page.find("#undo").is_enabled()
    page.drag("score_threshold", 50)
    moved, other = page.number("score_threshold"), page.score
    assert moved != before
    page.press(keys.CONTROL, "z")
    page.settle()
    assert (page.number("score_threshold"), page.score) == (before, score)
    assert not page.find("#undo").is_enabled()
    page.press(keys.CONTROL, keys.SHIFT, "z")
    page.settle()
    assert (page.number("score_threshold"), page.score) == (moved, other)
    page.click("#undo")
    page.settle()
    page.click("#redo")
    page.settle()
    assert page.number("score_threshold") == moved


def test_reload_and_back_restore_the_state(page, keys):
    page.type_number("score_threshold", 0.42)
    page.press("2")
    page.press(keys.ARROW_RIGHT)
    page.type_number("mask_threshold", 0.6)
    image = page.image
    page.wait("location.hash.length > 20")
    page.driver.refresh()
    page.settle()
    assert (page.number("score_threshold"), page.number("mask_threshold")) == (0.42, 0.6)
    assert page.image == image
    assert page.find("#panes").get_attribute("data-layout") == "over"
    page.driver.back()
    page.settle()
    assert (page.number("score_threshold"), page.number("mask_threshold")) == (0.42, 0.5)


@pytest.mark.parametrize(
    "fragment",
    [
        "#s=%%%",
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in (
                "#s=bm90IGpzb24",  # not json
                "#s=W10",  # []
                "#s=eyJzZXR0aW5ncyI6eyJfX3Byb3RvX18iOjF9fQ",  # {"settings":{"__proto__":1}}
                "#s=eyJ2aWV3Ijp7ImltYWdlIjo5OTk5fX0",  # {"view":{"image":9999}}
            )
        ),
        "#s=eyJzZXR0aW5ncyI6eyJzY29yZV90aHJlc2hvbGQiOiI8Yj4ifX0",  # a text as score_threshold
    ],
)
def test_a_malformed_address_is_ignored_with_a_line(page, fragment):
    page.open(fragment)
    assert page.text("#messages").startswith("The address has no state that can be used")
    assert page.number("score_threshold") == 0.5


def test_arrow_keys_walk(page, keys):
    assert page.image == "000.png"
    page.press(keys.ARROW_RIGHT)
    assert page.image == "001.png"
    page.press(keys.ARROW_RIGHT)
    page.press(keys.ARROW_RIGHT)
    page.press(keys.ARROW_LEFT)
    assert page.image == "002.png"
    columns = len({card.location["x"] for card in page.find_all("#grid button")})
    page.press(keys.ARROW_DOWN)
    assert page.image == f"{2 + columns:03d}.png"
    page.find("#filter-text").send_keys(keys.ARROW_LEFT)  # is for the field
    assert page.image == f"{2 + columns:03d}.png"


def test_filters_and_orders(page):
    assert page.text("#shown") == f"{NUM_IMAGES} images"
    assert 0 < len(page.cards()) < NUM_IMAGES  # those on screen alone
    page.find("#filter-text").send_keys("05")
    assert page.cards() == ["005.png", *(f"05{digit}.png" for digit in range(9))]
    page.click("#filter-reset")
    page.choose("#order", "worst")
    scores = [float(one.text) for one in page.find_all("#grid .caption b")]
    assert scores == sorted(scores)
    page.click("#filter-reset")
    page.find("#filter-high").clear()
    page.find("#filter-high").send_keys("0.5", "\t")
    scores = [float(one.text) for one in page.find_all("#grid .caption b")]
    assert scores
    assert max(scores) <= 0.5
    page.click("#filter-reset")
    page.wait("document.querySelector('#errors button') !== null")
    for table in ("#errors", "#categories"):  # a click on a row's name filters, too
        rows = [row for row in page.find_all(f"{table} tbody tr") if row.text.split()[-2] != "0"]
        rows[0].find_element("css selector", "button").click()
        assert 0 < int(page.text("#shown").split()[0]) < NUM_IMAGES
        page.click("#filter-reset")


def test_hostile_names_are_text(page):
    for name in CATEGORY_NAMES.values():
        assert name in page.text("#categories")
        assert name in page.text("[data-key=remove_categories]")
        assert name in page.text("#filter-category")
    page.press("x")
    page.find("#filter-text").send_keys("svg")
    page.click("#grid button")
    page.wait("document.querySelector('#prediction-pane canvas').ariaLabel.includes('<svg')")
    assert page.image == HOSTILE_IMAGE
    assert page.find_all("[onerror], [onload], main script, main svg:not(.chart)") == []


def test_hovering_tells_about_a_detection(page):
    from selenium.webdriver.common.action_chains import ActionChains

    page.press("3")
    page.click("#table-tab")
    ActionChains(page.driver).move_to_element(page.find("#table-panel tbody tr")).perform()
    assert "hovered" in page.find("#table-panel tbody tr").get_attribute("class")
    at = page.driver.execute_async_script(
        """
        const done = arguments[0];
        const { parseRle } = await import("/static/masks.js");
        const { fromFragment } = await import("/static/state.js");
        const lab = await (await fetch("/api/lab", { headers: { "X-Lab": "1" } })).json();
        const settings = { ...lab.presets.find(({ name }) => name === "default").settings,
          ...fromFragment(location.hash).settings };
        const answer = await (await fetch("/api/image", { method: "POST",
          headers: { "X-Lab": "1", "Content-Type": "application/json" },
          body: JSON.stringify({ settings, index: 0, ghosts: false, client: "t", sequence: 1 }),
        })).json();
        const bounds = parseRle(answer.detections[0].mask);
        const runs = Array.from({ length: bounds.length / 2 }, (_, at) => 2 * at);
        const longest = runs.sort((a, b) =>
          bounds[b + 1] - bounds[b] - bounds[a + 1] + bounds[a])[0];
        const middle = Math.floor((bounds[longest] + bounds[longest + 1]) / 2);
        const [height, width] = answer.raster_hw;
        done([(Math.floor(middle / height) + 0.5) / width, (middle % height + 0.5) / height]);
        """
    )
    canvas = page.find("#prediction-pane canvas")
    x, y = (at[0] - 0.5) * canvas.size["width"], (at[1] - 0.5) * canvas.size["height"]
    ActionChains(page.driver).move_to_element_with_offset(canvas, round(x), round(y)).perform()
    page.wait("!document.querySelector('#tip').hidden")
    tip = page.text("#tip")
    assert any(name in tip for name in CATEGORY_NAMES.values())
    assert "score 0." in tip


def test_ghosts_say_why_they_are_gone(page):
    page.type_number("score_threshold", 0.8)
    page.press("x")
    page.click("#table-tab")
    page.wait("document.querySelectorAll('#table-panel [data-role=ghost]').length > 0")
    assert "is not above 0.8" in page.text("#table-panel")


def test_a_sweep_fills_and_a_cell_is_taken(page):
    page.press("s")
    for axis, values in (("x", "0.3, 0.6"), ("y", "0.2, 0.5, 2")):
        field = page.find(f"#sweep-{axis}-values")
        field.clear()
        field.send_keys(values)
    page.click("#sweep-start")
    page.wait("document.querySelector('#sweep-status').textContent.startsWith('Best')")
    cells = page.find_all("#heat button")
    assert [cell.is_enabled() for cell in cells] == [True] * 4 + [False] * 2
    assert "must be" in cells[4].get_attribute("title")
    wanted = float(cells[3].get_attribute("title"))
    cells[3].click()
    page.settle()
    assert (page.number("score_threshold"), page.number("nms_iou_threshold")) == (0.6, 0.5)
    assert page.score == wanted
    assert cells[3].get_attribute("aria-pressed") == "true"


def test_the_baseline_is_pinned_and_compared_with(page):
    before = page.score
    page.press("p")
    page.settle()
    page.type_number("score_threshold", 0.9)
    difference = float(page.text("#difference b").replace("\N{MINUS SIGN}", "-"))
    assert difference == pytest.approx(page.score - before, abs=6e-5)
    assert page.text("#verdict").split(" (")[0] in ("a is better", "within noise", "b is better")
    page.wait("document.querySelector('#grid .bad') !== null")


def test_settings_are_written_and_never_over_a_file_of_somebody(page, lab):
    folder = lab.config_dir / "postprocess"
    (folder / "by_hand.yaml").write_text("score_threshold: 0.1\n")
    page.type_number("score_threshold", 0.37)
    page.press("e")
    page.find("#write-name").send_keys("by_hand", "\n")
    page.wait("document.querySelector('#out-message').classList.contains('bad')")
    assert (folder / "by_hand.yaml").read_text() == "score_threshold: 0.1\n"
    page.find("#write-name").clear()
    page.find("#write-name").send_keys("from_page", "\n")
    page.wait("document.querySelector('#out-message').textContent.startsWith('Written')")
    assert yaml.safe_load((folder / "from_page.yaml").read_text())["score_threshold"] == 0.37
    assert "postprocess=from_page" in page.find("#command").get_property("value")
    assert any("400" in message for message in page.messages())  # of the refused file


@pytest.mark.slow
def test_files_are_downloaded(page, driver, tmp_path):
    behavior = {"behavior": "allow", "downloadPath": str(tmp_path)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    page.choose("#order", "worst")
    page.press("e")
    page.click("#download-images")
    rows = list(csv.DictReader(page.downloaded(tmp_path, "images.csv").decode().splitlines()))
    assert len(rows) == NUM_IMAGES
    mean = sum(float(row["score"]) for row in rows) / NUM_IMAGES
    assert mean == pytest.approx(page.score, abs=1e-12)
    page.click("#download-categories")
    rows = list(csv.DictReader(page.downloaded(tmp_path, "categories.csv").decode().splitlines()))
    names = [f"'{name}" if name.startswith("=") else name for name in CATEGORY_NAMES.values()]
    assert [row["name"] for row in rows] == names  # a formula is a text for a spreadsheet
    page.click("#download-png")
    assert page.downloaded(tmp_path, "000.png").startswith(b"\x89PNG")
    page.click("#download-submission")
    lines = page.downloaded(tmp_path, "submission.csv").decode().splitlines()
    assert {int(line.rsplit(",", 1)[1]) for line in lines[1:]} == set(CATEGORY_NAMES)
    assert page.text("#out-message").startswith("Submission: ")


def test_the_session_is_offered_at_the_next_start(page):
    page.type_number("score_threshold", 0.33)
    page.wait("performance.getEntriesByType('resource').some(e => e.name.endsWith('/api/session'))")
    page.open()
    assert page.find("#offer").is_displayed()
    page.click("#resume")
    page.settle()
    assert page.number("score_threshold") == 0.33
    assert not page.find("#offer").is_displayed()


def test_on_a_narrow_screen_the_image_is_first_and_nothing_overflows(page, driver):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.open("#s=e30")
        for panel in ("settings", "scores", "images", "sweep"):
            page.click(f"#panels [data-panel={panel}]")
            shown = "images" if panel == "images" else panel
            chosen = page.find("#drawer" if shown == "images" else f"#{shown}")
            assert chosen.is_displayed()
            assert driver.execute_script("return document.scrollingElement.scrollWidth") == 390
            if panel != "sweep":
                assert page.find("#viewer").rect["y"] < chosen.rect["y"]
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
