"""Report page of a sweep: its best job, heat maps, a table of the best jobs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import quote

from src.errors import InputError
from src.reporting import charts
from src.reporting.template import template
from src.tuning.sweeps import TABLE_NAMES, SweepResults

SHOWN_JOBS = 25
REPORT_NAME = "report.html"  # of a job, in its folder


def render_sweep(
    results: SweepResults, *, title: str, directory: str, page_dir: str | Path = "."
) -> str:
    """Return the page of a sweep as HTML, everything inline; it fetches nothing.

    A job whose folder has a ``report.html`` has a link to it.

    Args:
        directory: The sweep's folder, as shown.
        page_dir: Folder of the page, from which links lead.

    Raises:
        InputError: No job has a score.
    """
    rows = [row for row in results.rows if row["competition_map"] is not None]
    if not rows:
        jobs = f"none of its {len(results.rows)} jobs has a score"
        raise InputError(
            f"{directory}: {jobs}; give the sweep annotations=..., or let a sweep of trainings "
            "reach their first validation"
        )
    scored = SweepResults(results.overrides, tuple(rows))
    best, swept = rows[0], scored.swept
    has_interval = _has_interval(best)
    pairs = [(swept[0], None)] if len(swept) == 1 else combinations(swept, 2)
    fixed = [key for key in scored.overrides if key not in swept]
    return template("sweep.html").render(
        title=title,
        best=best,
        has_interval=has_interval,
        interval_bar=has_interval
        and charts.interval_bar(best["low"], best["competition_map"], best["high"]),
        settings=[(_short(key), best[key]) for key in (*swept, *fixed)],
        directory=directory,
        best_report=_report_of(directory, best["folder"], page_dir),
        tables=", ".join(TABLE_NAMES),
        jobs=len(results.rows),
        unscored=len(results.rows) - len(rows),
        not_worse=has_interval and sum(row["competition_map"] >= best["low"] for row in rows[1:]),
        columns=[_short(key) for key in swept],
        rows=[
            {
                "values": [row[key] for key in swept],
                "folder": row["folder"],
                "report": _report_of(directory, row["folder"], page_dir),
                "score": row["competition_map"],
                "interval": f"{row['low']:.4f} to {row['high']:.4f}" if _has_interval(row) else "",
                "detections": row.get("num_detections"),
            }
            for row in rows[:SHOWN_JOBS]
        ],
        figures=[_figure(rows, x_key, y_key, swept) for x_key, y_key in pairs],
    )


def _figure(rows: list[Any], x_key: str, y_key: str | None, swept: Sequence[str]) -> dict[str, Any]:
    others = [_short(key) for key in swept if key not in (x_key, y_key)]
    heading = _short(x_key) if y_key is None else f"{_short(y_key)} by {_short(x_key)}"
    return {
        "heading": heading,
        "image": charts.heat_map(charts.best_scores(rows, x_key, y_key)),
        "caption": f"Each cell is the best over {', '.join(others)}." if others else "",
    }


def _has_interval(row: Mapping[str, Any]) -> bool:
    """Return whether a job has an interval of its score; jobs of a training have none."""
    return row.get("low") is not None and row.get("high") is not None


def _short(key: str) -> str:
    return key.removeprefix("postprocess.")


def _report_of(directory: str, folder: str, page_dir: str | Path) -> str | None:
    """Return the address of a job's report, relative to the page; None: it has none."""
    path = Path(directory, folder, REPORT_NAME)
    if not path.is_file():
        return None
    return quote(Path(os.path.relpath(path, page_dir)).as_posix())
