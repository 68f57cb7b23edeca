"""Names, contrast and focus of the lab's page, as the browser computes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.lab_page import CONTRASTS

pytestmark = pytest.mark.browser


@pytest.fixture
def page(driver: Any, lab: Any) -> Iterator[Any]:
    """The page with every table and list open."""
    from tests.helpers.page import Page

    made = Page(driver, lab.address)
    driver.set_window_size(1440, 900)
    made.open("#s=e30")
    driver.execute_script("document.querySelectorAll('details').forEach((one) => one.open = true)")
    yield made
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    made.messages()


def test_whatever_can_be_operated_has_a_name(page):
    selector = "button, input, select, summary, canvas, [role], [tabindex='0'], table"
    nodes = [node for node in page.find_all(selector) if node.is_displayed()]
    assert len(nodes) > 80
    tags = [(node.tag_name, node.get_attribute("outerHTML")[:120]) for node in nodes]
    unnamed = [
        tag
        for node, tag in zip(nodes, tags, strict=True)
        if not node.accessible_name and node.aria_role not in ("generic", "status", "alert")
    ]
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_enough_contrast(page, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page.type_number("score_threshold", 0.8)
    page.press("x")
    assert page.driver.execute_script(CONTRASTS) == []
    page.click("#table-tab")
    assert page.driver.execute_script(CONTRASTS) == []
    page.press("s")
    assert page.driver.execute_script(CONTRASTS) == []
    page.press("e")
    assert page.driver.execute_script(CONTRASTS) == []


def test_the_switch_of_colours_overrides_the_system(page):
    def background() -> str:
        return page.find("body").value_of_css_property("background-color")

    usual = background()
    page.click("#theme")  # light
    assert background() == usual
    page.click("#theme")  # dark
    assert background() != usual


def test_every_control_is_reached_and_seen_by_keyboard(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.press(Keys.TAB)
    assert page.driver.execute_script("return document.activeElement.className") == "skip"
    reached = set()
    for _ in range(60):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        name, is_outlined, is_seen = page.driver.execute_script(
            """
            const node = document.activeElement;
            const { outlineStyle } = getComputedStyle(node.matches(".segments input")
              ? node.nextElementSibling : node);
            const { left, top, width, height } = node.getBoundingClientRect();
            const seen = document.elementFromPoint(left + width / 2, top + height / 2);
            return [node.id || node.outerHTML.slice(0, 80), outlineStyle !== "none",
              node.contains(seen) || seen?.closest("label")?.contains(node) === true];
            """
        )
        assert is_outlined, name
        assert is_seen, name
        reached.add(name)
    assert {"theme", "preset", "control-score_threshold"} <= reached
