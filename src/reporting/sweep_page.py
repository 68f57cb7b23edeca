"""The page of a sweep: its best job with the interval, heat maps, and a table of the best."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from src.errors import InputError
from src.reporting.charts import interval_bar
from src.reporting.heat_maps import best_scores, heat_map
from src.reporting.page import template
from src.tuning.sweep_results import TABLE_NAMES, SweepResults

SHOWN_JOBS = 25


def render_sweep(results: SweepResults, *, title: str, directory: str) -> str:
    """Return the page as HTML; everything is in it, nothing is fetched.

    Args:
        results: Jobs of a sweep.
        title: The heading.
        directory: Where the sweep lies, as the reader should see it.

    Raises:
        InputError: no job has a score.
    """
    rows = [row for row in results.rows if row["competition_map"] is not None]
    if not rows:
        raise InputError(
            f"{directory}: none of its {len(results.rows)} jobs has a score; "
            "give the sweep ground_truth=..."
        )
    scored = SweepResults(results.overrides, tuple(rows))
    best, swept = rows[0], scored.swept
    pairs: list[tuple[str, str | None]] = list(combinations(swept, 2))
    if len(swept) == 1:
        pairs = [(swept[0], None)]
    figures = [_figure(rows, x_key, y_key, swept) for x_key, y_key in pairs]
    fixed = [key for key in scored.overrides if key not in swept]
    return template("sweep.html").render(
        title=title,
        best=best,
        has_interval=_has_interval(best),
        interval_bar=(
            interval_bar(best["low"], best["competition_map"], best["high"])
            if _has_interval(best)
            else ""
        ),
        settings=[(_short(key), best[key]) for key in (*swept, *fixed)],
        directory=directory,
        tables=", ".join(TABLE_NAMES),
        jobs=len(results.rows),
        unscored=len(results.rows) - len(rows),
        not_worse=(
            sum(row["competition_map"] >= best["low"] for row in rows[1:])
            if _has_interval(best)
            else None
        ),
        columns=[_short(key) for key in swept],
        rows=[
            {
                "values": [row[key] for key in swept],
                "score": row["competition_map"],
                "interval": (
                    f"{row['low']:.4f} to {row['high']:.4f}" if _has_interval(row) else ""
                ),
                "objects": row.get("objects"),
            }
            for row in rows[:SHOWN_JOBS]
        ],
        figures=figures,
    )


def _figure(
    rows: list[Any], x_key: str, y_key: str | None, swept: tuple[str, ...]
) -> dict[str, Any]:
    others = [_short(key) for key in swept if key not in (x_key, y_key)]
    heading = _short(x_key) if y_key is None else f"{_short(y_key)} by {_short(x_key)}"
    return {
        "heading": heading,
        "picture": heat_map(best_scores(rows, x_key, y_key)),
        "caption": f"Each cell is the best over {', '.join(others)}." if others else "",
    }


def _has_interval(row: Mapping[str, Any]) -> bool:
    """Whether a job has the interval of its score: a training's has none."""
    return row.get("low") is not None and row.get("high") is not None


def _short(key: str) -> str:
    return key.removeprefix("postprocess.")
