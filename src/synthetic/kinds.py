"""Short names for the 46 category ids of iMaterialist (Fashion) 2019, for use in drawing code."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """Category ids. 0 to 26 are garments and accessories, 27 to 45 are parts nested in them."""

    SHIRT = 0
    TOP = 1
    SWEATER = 2
    CARDIGAN = 3
    JACKET = 4
    VEST = 5
    PANTS = 6
    SHORTS = 7
    SKIRT = 8
    COAT = 9
    DRESS = 10
    JUMPSUIT = 11
    CAPE = 12
    GLASSES = 13
    HAT = 14
    HEADBAND = 15
    TIE = 16
    GLOVE = 17
    WATCH = 18
    BELT = 19
    LEG_WARMER = 20
    TIGHTS = 21
    SOCK = 22
    SHOE = 23
    BAG = 24
    SCARF = 25
    UMBRELLA = 26
    HOOD = 27
    COLLAR = 28
    LAPEL = 29
    EPAULETTE = 30
    SLEEVE = 31
    POCKET = 32
    NECKLINE = 33
    BUCKLE = 34
    ZIPPER = 35
    APPLIQUE = 36
    BEAD = 37
    BOW = 38
    FLOWER = 39
    FRINGE = 40
    RIBBON = 41
    RIVET = 42
    RUFFLE = 43
    SEQUIN = 44
    TASSEL = 45


LAST_GARMENT_WITH_ATTRIBUTES = 12
FIRST_PART = 27
