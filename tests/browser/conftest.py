"""A browser and a running lab, once for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from src.metrics.intervals import Interval
from src.postprocess.settings import PostprocessSettings
from src.tuning.search_results import Searched, write_option
from tests.helpers.lab_page import (
    NO_BROWSER,
    PageData,
    find_browser,
    open_browser,
    run_lab,
    write_page_data,
)

# An option that a search found on other images.
FOUND = PostprocessSettings.preset("winner_all_classes").replace(score_threshold=0.45)
SEARCHED = Searched(
    name="found",
    trials=40,
    averaging="per_class",
    gain=Interval(0.0123, -0.0045, 0.0291, confidence=0.95, resamples=1000),
    verdict="within noise",
    images=frozenset(),
    cross_validated=0.5712,
)


class Lab(NamedTuple):
    """A running lab."""

    address: str
    data: PageData
    config_dir: Path


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless browser."""
    pytest.importorskip("selenium", reason="needs selenium: make setup")
    if find_browser() is None:
        pytest.skip(NO_BROWSER)
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def lab(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of a small store."""
    folder = tmp_path_factory.mktemp("lab")
    data, config_dir = write_page_data(folder / "data"), folder / "conf"
    (config_dir / "postprocess").mkdir(parents=True)
    write_option(config_dir / "postprocess" / "found.yaml", FOUND, ["a search"], SEARCHED)
    with run_lab(
        f"predictions={data.predictions}",
        f"ground_truth={data.annotations}",
        f"images={data.images}",
        f"cache_dir={folder / 'cache'}",
        f"session_dir={folder / 'sessions'}",
        f"config_dir={config_dir}",
    ) as running:
        yield Lab(running.address, data, config_dir)


@pytest.fixture
def page(driver: Any, lab: Any) -> Iterator[Any]:
    """The page, loaded anew; at the end nothing may be on the console."""
    from tests.helpers.page import Page

    made = Page(driver, lab.address)
    driver.set_window_size(1440, 900)
    made.messages()
    made.open("#s=e30")  # an empty state, so that no session is offered
    yield made
    assert made.messages() == []
    assert driver.execute_script("return window.wasHacked") is None
