"""The competitions of conf/competition."""

from __future__ import annotations

from src.annotations.competition import Competition

IMATERIALIST_2019 = Competition.preset("imaterialist_2019")
IMATERIALIST_2020 = Competition.preset("imaterialist_2020")
DSB_2018 = Competition.preset("dsb_2018")
COCO = Competition.preset("coco")

OTHER_DATA = IMATERIALIST_2019.without_categories()
"""Rules of 2019 for data of other categories: no filler row."""
