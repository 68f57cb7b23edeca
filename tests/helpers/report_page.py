"""The page of a report in a browser: what it shows, and what can be done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

NAMES = "return [...document.querySelectorAll('#cards h3')].map((one) => one.textContent)"
SCORES = "return [...document.querySelectorAll('.card .value')].map((one) => one.textContent)"


class ReportPage:
    """A tab with a report."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver, self.address = driver, path.as_uri()

    def open(self, fragment: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(self.address + fragment)
        self.wait("return document.body.dataset.ready === 'true'")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str) -> None:
        WebDriverWait(self.driver, 60, poll_frequency=0.02).until(lambda _: self.run(script))

    def click(self, selector: str) -> None:
        """Click as a script does: where it stands on the page does not matter."""
        self.run(
            "document.querySelector(arguments[0]).dispatchEvent("
            "new MouseEvent('click', {bubbles: true, cancelable: true}))",
            selector,
        )

    def choose(self, selector: str, value: str) -> None:
        self.run(
            "const node = document.querySelector(arguments[0]); node.value = arguments[1];"
            "node.dispatchEvent(new Event('change', {bubbles: true}))",
            selector,
            value,
        )

    def count(self) -> str:
        return self.run("return document.querySelector('#count').textContent")

    def names(self) -> list[str]:
        return self.run(NAMES)

    def scores(self) -> list[float]:
        return [float(text) for text in self.run(SCORES)]

    def fragment(self) -> str:
        return self.run("return location.hash")

    def press(self, key: str) -> None:
        ActionChains(self.driver).send_keys(key).perform()

    def follow(self, link: str) -> None:
        """Follow a link by the keyboard."""
        self.run("document.querySelector(`a[href='${arguments[0]}']`).focus()", link)
        self.press(Keys.ENTER)

    def turn_wheel(self, selector: str, by_px: int) -> None:
        origin = ScrollOrigin.from_element(self.driver.find_element(By.CSS_SELECTOR, selector))
        ActionChains(self.driver).scroll_from_origin(origin, 0, by_px).perform()
