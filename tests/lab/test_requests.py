"""Older requests of a page end when a newer one takes their place."""

from __future__ import annotations

import pytest

from src.lab.requests import CHANNELS, Channels, DroppedError


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_newer_score_drops_what_follows_an_older_one_and_nothing_else(channel: str) -> None:
    channels = Channels()
    older = channels.enter({"client": "a", "sequence": 1}, channel)
    other_page = channels.enter({"client": "b", "sequence": 1}, channel)
    score = channels.enter({"client": "a", "sequence": 2}, "score")
    score.check()
    other_page.check()
    if channel in ("score", "interval", "errors", "coco"):
        with pytest.raises(DroppedError):
            older.check()
    else:
        older.check()
    channels.enter({"client": "a", "sequence": 3}, channel).check()
