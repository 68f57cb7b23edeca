"""The page of a sweep: heat maps show the best of each cell, the best job is named."""

from __future__ import annotations

import re

import pytest

from src.errors import InputError
from src.reporting.charts import best_scores, heat_map
from src.reporting.sweep_page import render_sweep
from src.tuning.sweeps import read_results
from tests.helpers.report_files import MASK, NMS, SCORE, marks, write_sweep


def test_cells_hold_the_best_over_the_other_keys(tmp_path):
    write_sweep(tmp_path)
    results = read_results(tmp_path)
    assert results.swept == (SCORE, NMS, MASK)
    data = best_scores(results.rows, NMS, SCORE)
    assert (data.x_values, data.y_values) == (("0.2", "0.3", "0.4"), ("0.3", "0.5"))
    assert data.scores == (
        pytest.approx((0.2, 0.3, 0.2)),  # score 0.3, mask 0.5
        pytest.approx((0.3, 0.4, 0.3)),
    )
    svg = heat_map(data)
    cells = marks(svg, "cell")
    assert len(cells) == 6
    opacity = [float(cell.get("fill-opacity")) for cell in cells]
    assert opacity == pytest.approx([0.08, 0.54, 0.08, 0.54, 1, 0.54])
    (frame,) = marks(svg, "best")
    assert (frame.get("x"), frame.get("y")) == (cells[4].get("x"), cells[4].get("y"))
    assert cells[4][0].text == f"{NMS}=0.3, {SCORE}=0.5: 0.40000"
    assert [node.text for node in marks(svg, "value")][4] == "0.4000"


def test_a_single_key_and_cells_without_a_job():
    rows = [
        {"k": "b", "competition_map": 0.5},
        {"k": None, "competition_map": 0.5},
        {"k": 3, "competition_map": 0.25},
    ]
    data = best_scores(rows, "k", None)
    assert data.x_values == ("null", "3", "b")
    assert data.scores == ((0.5, 0.25, 0.5),)
    rows = [{"x": 1, "y": 1, "competition_map": 0.5}, {"x": 2, "y": 2, "competition_map": 0.5}]
    svg = heat_map(best_scores(rows, "x", "y"))
    assert len(marks(svg, "empty")) == 2
    assert {cell.get("fill-opacity") for cell in marks(svg, "cell")} == {"1.0"}
    assert len(marks(svg, "best")) == 1


def test_the_page_names_the_best_job_and_its_interval(tmp_path):
    write_sweep(tmp_path)
    html = render_sweep(read_results(tmp_path), title="Grid <1>", directory="multirun/a")
    assert "<h1>Grid &lt;1&gt;</h1>" in html
    assert "Best of 12 jobs" in html
    assert '<p class="score">0.4000</p>' in html
    assert "<b>0.3800</b> to <b>0.4300</b>" in html
    assert "<dt>score_threshold</dt><dd>0.5</dd>" in html
    assert "<dt>postprocess</dt><dd>winner</dd>" in html
    assert "multirun/a/3" in html
    assert "<b>1</b> others within its interval" in html  # mask 0.45: 0.395
    assert html.count('<svg class="chart map"') == 3  # each two of three keys
    assert "Each cell is the best over mask_threshold." in html
    assert html.count("<tr>") == 13
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_damaged_and_empty_sweeps_are_named(tmp_path):
    with pytest.raises(InputError, match=r"holds no results of a sweep \(\*/result\.json\)"):
        read_results(tmp_path)
    write_sweep(tmp_path / "unscored", scored=False)
    with pytest.raises(InputError, match=r"a: none of its 12 jobs has a score; give the sweep ann"):
        render_sweep(read_results(tmp_path / "unscored"), title="", directory="a")
    (tmp_path / "unscored" / "3" / "result.json").write_text("{}")
    with pytest.raises(InputError, match=r"3/result\.json: overrides or result are missing"):
        read_results(tmp_path / "unscored")


def test_jobs_with_a_report_have_a_link_to_it(tmp_path):
    """Relative to the page, and with every character of the path taken literally."""
    sweep = tmp_path / "runs" / "a b&c"
    write_sweep(sweep)
    results = read_results(sweep)
    page = render_sweep(results, title="t", directory=str(sweep), page_dir=tmp_path / "pages")
    assert "href=" not in page
    assert "A job whose folder has a report.html has a link" in page
    best, other = results.rows[0]["folder"], results.rows[3]["folder"]
    for folder in (best, other):
        (sweep / folder / "report.html").write_text("<p>")
    page = render_sweep(results, title="t", directory=str(sweep), page_dir=tmp_path / "pages")
    links = re.findall(r'href="([^"]*)"', page)
    address = "../runs/a%20b%26c/{}/report.html".format
    assert links == [address(best), address(best), address(other)]
