"""Names, contrast and focus of the lab's page, as the browser computes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.browser

# Each text that is shown, with the contrast to what lies behind it (WCAG 2.2, 1.4.3).
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
