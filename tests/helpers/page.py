"""The page of the lab as a person has it: what it shows, and what can be done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

WAIT_S = 60  # on a machine that is busy; each wait ends as soon as it can


class Page:
    """A tab with the lab."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self, fragment: str = "") -> None:
        """Load the page anew, and wait for its score and its image."""
        self.driver.get("about:blank")
        self.driver.get(self.address + fragment)
        self.settle()

    def settle(self) -> None:
        """Wait until the page is up to date with its settings."""
        self.wait("document.body.dataset.ready === 'true'")
        self.wait(
            "document.querySelector('#timing').textContent !== ''"
            " && !document.querySelector('#scores').classList.contains('stale')"
            " && !document.querySelector('#interval').classList.contains('old')"
        )

    def wait(self, condition: str) -> None:
        WebDriverWait(self.driver, WAIT_S, poll_frequency=0.02).until(
            lambda driver: driver.execute_script(f"return Boolean({condition})"),
            f"never true: {condition}",
        )

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.driver.execute_script(
            "return document.querySelector(arguments[0]).textContent", selector
        )

    def click(self, selector: str) -> None:
        self.find(selector).click()

    def press(self, *keys: str) -> None:
        """Press keys at once, with nothing in focus."""
        self.driver.execute_script("document.activeElement.blur()")
        actions = ActionChains(self.driver)
        for key in keys[:-1]:
            actions.key_down(key)
        actions.send_keys(keys[-1])
        for key in keys[:-1]:
            actions.key_up(key)
        actions.perform()

    def drag(self, key: str, by_px: int, steps: int = 5) -> None:
        """Drag the slider of a setting; ``steps`` positions on the way."""
        slider = self.find(f"[data-key={key}] input[type=range]")
        value, low, high = (float(slider.get_property(name)) for name in ("value", "min", "max"))
        room = slider.size["width"] - 14  # the thumb's middle goes from 7 px to 7 px before the end
        start = round(7 + room * (value - low) / (high - low) - slider.size["width"] / 2)
        actions = ActionChains(self.driver, duration=30)
        actions.move_to_element_with_offset(slider, start, 0).click_and_hold()
        for _ in range(steps):
            actions.move_by_offset(by_px // steps, 0)
        actions.release().perform()
        self.settle()

    def type_number(self, key: str, value: float | int) -> None:
        field = self.find(f"[data-key={key}] input[type=number]")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(f"{value}", Keys.TAB)
        self.settle()

    def number(self, key: str) -> float:
        field = self.find(f"[data-key={key}] input[type=number]")
        return float(field.get_property("value"))

    def choose(self, selector: str, value: str) -> None:
        Select(self.find(selector)).select_by_value(value)

    @property
    def score(self) -> float:
        """All digits of the score."""
        return float(self.find("#score").get_attribute("data-value"))

    @property
    def image(self) -> str:
        """The name of the open image."""
        return self.text("#image-name")

    def cards(self) -> list[str]:
        """Names of the images whose cards are made."""
        return [one.get_attribute("title") for one in self.find_all("#grid button")]

    def messages(self) -> list[str]:
        """Errors and violations of the policy on the console since the last call."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]

    def downloaded(self, folder: Path, name: str) -> bytes:
        """Wait for a download and return its bytes."""
        path = folder / name
        WebDriverWait(self.driver, WAIT_S).until(lambda _: path.exists(), f"no download {name}")
        return path.read_bytes()
