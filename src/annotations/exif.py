"""EXIF orientations: tell whether masks were made on the displayed or on the stored image.

An image with an EXIF orientation is stored turned. Some tools draw on what viewers display, others
on the file's own rows and columns, and the size that an annotation file names may be that of
either, or have height and width exchanged. The masks themselves decide:

- RLE read with another height than they were written with are sheared, so that hardly a
  column continues the one before; and a box that the file has beside them does not fit.
- Polygons that leave one of the frames are inside the other.

Orientations 2 to 4 keep the size and give no such evidence: the other images of the file decide,
first those whose size is named alike. Where nothing decides, a key has to.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from src.annotations.image_files import AS_DISPLAYED, AS_STORED, AUTO, TURNED_FILE, Frame
from src.annotations.rows import NO_INSTANCE, RowBlock
from src.errors import InputError
from src.rle import ParsedRle, Rle, RleBatch, RleError
from src.rle.coco import from_polygons
from src.rle.raster import edges_between_columns, turn, turn_box, turn_points

# A wrong height has at least so many times the edges between columns. Where all runs are counted,
# it has them also in proportion to the height (a band over full columns has the fewer edges the
# lower the image is); where only short runs are, the numbers are compared directly.
_CLEAR_FACTOR, _CLEAR_FACTOR_SHORT = 1.2, 1.5
_CLEAR_EDGES_PX = 8
BOX_TOLERANCE_PX = 2.0
_FRAME_TOLERANCE = 0.01  # of the longer edge: polygons are drawn a little over the border

Size: TypeAlias = tuple[int, int]
Polygons: TypeAlias = Sequence[Sequence[float]]
Group: TypeAlias = tuple[str, bool]  # image id, and whether its masks are polygons


@dataclass(slots=True)
class _Evidence:
    """Evidence of the masks of one kind on one image."""

    frame: Frame
    declared_hw: Size  # that the file names for these masks
    edges_px: Counter[str] = field(default_factory=Counter)  # between columns, by reading
    short_edges_px: Counter[str] = field(default_factory=Counter)  # of short runs, by reading
    boxes_missed: Counter[str] = field(default_factory=Counter)  # boxes of the file, by reading
    # how far polygons reach over a frame, by reading
    excess_px: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    differ: bool = False  # whether the readings give different masks

    def add(self, mask: Rle, polygons: Polygons | None, box_xywh: tuple[float, ...] | None) -> None:
        """Count a mask in, with the polygons and the box that the file has for it."""
        frame, runs = self.frame, mask.runs
        for name, grid_hw in frame.grids.items():
            if polygons is not None:
                self.excess_px[name] = max(self.excess_px[name], _excess_px(polygons, grid_hw))
                continue
            in_a_column = runs[runs[:, 1] < max(grid_hw)]  # others say nothing of a height
            self.edges_px[name] += edges_between_columns(in_a_column, grid_hw[0])
            short = runs[2 * runs[:, 1] < min(grid_hw)]
            self.short_edges_px[name] += edges_between_columns(short, grid_hw[0])
            if box_xywh is not None:
                box_xyxy = RleBatch.of([Rle(runs, grid_hw)]).boxes_xyxy()[0].tolist()
                missed_px = box_distance_px(box_xywh, box_xyxy)
                self.boxes_missed[name] += missed_px > BOX_TOLERANCE_PX
        if not self.differ and AS_STORED in frame.grids:
            displayed = _mask_on(frame, AS_DISPLAYED, mask, polygons)
            self.differ = displayed != _mask_on(frame, AS_STORED, mask, polygons)

    def fitting(self) -> set[str]:
        """Return the readings that the masks allow."""
        fits = set(self.frame.grids)
        fits = {name for name in fits if not any(self._is_sheared(name, beside) for beside in fits)}
        fits = fits or set(self.frame.grids)
        if boxed := {name for name in fits if not self.boxes_missed[name]}:
            fits = boxed
        tolerance = max(BOX_TOLERANCE_PX, _FRAME_TOLERANCE * max(self.frame.annotated_hw))
        most = min(self.excess_px[name] for name in fits) + tolerance
        fits = {name for name in fits if self.excess_px[name] <= most}
        if len(fits) > 1:
            fits.discard(TURNED_FILE)
        return fits

    def _is_sheared(self, name: str, beside: str) -> bool:
        """Return whether columns continue each other far less in one reading than in another."""
        edges, fewer = self.edges_px[name], self.edges_px[beside]
        heights = self.frame.grids[name][0] / self.frame.grids[beside][0]
        if edges > fewer + _CLEAR_EDGES_PX and edges > _CLEAR_FACTOR * fewer * max(1, heights):
            return True
        edges, fewer = self.short_edges_px[name], self.short_edges_px[beside]
        return edges > fewer + _CLEAR_EDGES_PX and edges > _CLEAR_FACTOR_SHORT * fewer

    @property
    def declared(self) -> frozenset[str]:
        """The readings whose grid has the size that the file names."""
        grids = self.frame.grids
        return frozenset(name for name in grids if grids[name] == self.declared_hw)


class ReadOtherwiseError(Exception):
    """A file has to be read again."""

    def __init__(self, readings: dict[Group, str]) -> None:
        super().__init__("some masks were made on the image as stored")
        self.readings = readings


class ExifReadings:
    """Reads the masks of images that can be read in more than one way, and decides how.

    A first pass over a file reads as displayed and collects evidence; ``settle`` then tells whether
    a second pass has to read some of it otherwise.

    Args:
        choice: ``auto``, ``as_displayed`` or ``as_stored``.
        decided: The readings of ``ReadOtherwiseError``, in a second pass.
        undecided: The choice of ``auto`` if nothing decides; None: that is refused.
    """

    def __init__(
        self,
        choice: str,
        *,
        decided: Mapping[Group, str] | None = None,
        undecided: str | None = None,
    ) -> None:
        self.choice, self.decided, self.undecided = choice, decided, undecided
        self._evidence: dict[Group, _Evidence] = {}
        self._seen: dict[Group, int] = {}  # EXIF orientation

    def read(self, block: RowBlock, frames: Sequence[Frame | str]) -> ParsedRle:
        """Return the masks of a block's N rows as they are on the displayed images.

        A frame is a text if its image is missing. ``problems`` includes the masks that cannot be
        read.
        """
        rows = {
            index: frame
            for index, frame in enumerate(frames)
            if isinstance(frame, Frame)
            and (frame.grids or _names_other_size(block, index, frame))
            and block.category_ids[index] != NO_INSTANCE
            and index not in block.masks.problems
        }
        if not rows:
            return block.masks
        masks, problems = list(block.masks.masks), dict(block.masks.problems)
        for index, frame in rows.items():
            try:
                masks[index] = self._read_mask(block, index, frame, masks[index])
            except RleError as error:
                problems[index] = str(error)
        return ParsedRle(RleBatch.of(masks), problems)

    def reading(self, image_id: str, is_polygon: bool) -> str:
        """Return the reading that this pass takes."""
        if self.choice != AUTO:
            return self.choice
        return (self.decided or {}).get((image_id, is_polygon), AS_DISPLAYED)

    def _read_mask(self, block: RowBlock, index: int, frame: Frame, mask: Rle) -> Rle:
        if not frame.grids:
            raise RleError(_names_other_size(block, index, frame))
        polygons = block.hints.polygons[index] if block.hints else None
        group = (frame.record.image_id, polygons is not None)
        self._seen[group] = frame.orientation
        reading = self.reading(*group)
        if reading == TURNED_FILE:
            height, width = frame.annotated_hw
            raise RleError(
                f"fits height {height} and width {width}, which the image has exchanged: it was "
                "made on the image turned by a quarter, and no EXIF orientation says which way"
            )
        if self.decided is None:
            declared_hw = block.hints.sizes_hw[index] if block.hints else None
            new = _Evidence(frame, declared_hw or frame.annotated_hw)
            box_xywh = block.hints.boxes_xywh[index] if block.hints else None
            self._evidence.setdefault(group, new).add(mask, polygons, box_xywh)
        if reading not in frame.grids:  # nothing to turn: as stored is as displayed
            reading = AS_DISPLAYED
        return _mask_on(frame, reading, mask, polygons)

    def settle(self, source: str) -> None:
        """Choose the reading of each image and kind of mask by all that a first pass saw.

        Raises:
            ReadOtherwiseError: Some have another reading than in this pass.
            InputError: Both readings fit, they differ, and ``auto`` is to choose.
        """
        if self.choice != AUTO or self.decided is not None:
            return
        fitting = {group: evidence.fitting() for group, evidence in self._evidence.items()}
        pool = _Pool()
        for group, fits in fitting.items():
            pool.add(self._evidence[group], fits)
        readings: dict[Group, str] = {}
        undecided: list[Group] = []
        for group, fits in fitting.items():
            if reading := pool.choose(self._evidence[group], fits) or self.undecided:
                readings[group] = reading
            else:
                undecided.append(group)
        if undecided:
            image_id, others = undecided[0][0], len({image_id for image_id, _ in undecided}) - 1
            raise InputError(
                f"exif must be as_displayed or as_stored, got auto ({source}, image "
                f"{image_id!r:.120}{f' and {others} more' if others else ''}): its EXIF "
                f"orientation is {self._evidence[undecided[0]].frame.orientation}, and the masks "
                "fit the image both as it is displayed and as it is stored"
            )
        if any(readings[group] != self.reading(*group) for group in readings):
            raise ReadOtherwiseError(readings)

    def by_image(self) -> dict[str, str]:
        """Return the reading of each image that has one, by image id."""
        return {
            group[0]: AS_DISPLAYED if orientation == 1 else self.reading(*group)
            for group, orientation in self._seen.items()
        }

    def notes(self) -> list[str]:
        """Return how often each reading was taken, a sentence each."""
        turned = {group[0] for group, orientation in self._seen.items() if orientation != 1}
        readings = Counter(name for image, name in self.by_image().items() if image in turned)
        notes = []
        if readings:
            counts = [f"{readings[name]} {name.replace('_', ' ')}" for name in sorted(readings)]
            notes.append(
                f"exif={self.choice}: {len(turned)} images with an EXIF orientation, whose masks "
                f"are read as made on the image: {', '.join(counts)}"
            )
        contradicted = [
            image_id
            for (image_id, _), evidence in self._evidence.items()
            if self.choice != AUTO
            and evidence.differ
            and self.choice in evidence.frame.grids
            and self.choice not in evidence.fitting()
        ]
        if contradicted:
            notes.append(
                f"exif={self.choice}, though the masks of {len(contradicted)} images fit them only "
                f"otherwise (the first: {contradicted[0]})"
            )
        return notes


class _Pool:
    """The readings of the images that decide for themselves, by the size that is named for them."""

    def __init__(self) -> None:
        self._by_declared: dict[frozenset[str], set[str]] = {}
        self._all: set[str] = set()
        self._displayed_size_named = False

    def add(self, evidence: _Evidence, fits: set[str]) -> None:
        """Count an image and kind of mask in."""
        if AS_STORED not in evidence.frame.grids:
            return
        self._displayed_size_named |= evidence.declared == {AS_DISPLAYED}
        if evidence.differ and len(fits) == 1:
            self._by_declared.setdefault(evidence.declared, set()).update(fits)
            self._all |= fits

    def choose(self, evidence: _Evidence, fits: set[str]) -> str | None:
        """Return the reading of an image and kind of mask; None where nothing decides."""
        if not evidence.differ:
            fits = fits & {AS_DISPLAYED} or fits
        if len(fits) == 1:
            return next(iter(fits))
        if alike := self._by_declared.get(evidence.declared):
            likely = alike
        elif evidence.declared == {AS_DISPLAYED}:
            likely = {AS_DISPLAYED} | self._all
        else:
            likely = self._all or ({AS_DISPLAYED} if self._displayed_size_named else set())
        return next(iter(likely)) if len(likely) == 1 else None


def _mask_on(frame: Frame, reading: str, mask: Rle, polygons: Polygons | None) -> Rle:
    """Return a mask as it is on the displayed image, according to a reading."""
    grid_hw = frame.grids[reading]
    if polygons is not None:
        if reading == AS_STORED:
            points = (np.reshape(part[: len(part) // 2 * 2], (-1, 2)) for part in polygons)
            turned = (turn_points(xy.astype(float), grid_hw, frame.orientation) for xy in points)
            polygons = [xy.ravel().tolist() for xy in turned]
        return from_polygons(polygons, frame.record.size_hw)
    mask = Rle(mask.runs, grid_hw)
    return turn(mask, frame.orientation) if reading == AS_STORED else mask


def _excess_px(polygons: Polygons, size_hw: Size) -> float:
    """Return how far polygons reach over the right and lower border of a frame, in pixels."""
    flat = [np.asarray(part, dtype=np.float64) for part in polygons if len(part) > 1]
    yx = [np.concatenate([[0.0], *(part[axis::2] for part in flat)]).max() for axis in (1, 0)]
    return float(max(0.0, *(edge - limit for edge, limit in zip(yx, size_hw, strict=True))))


def box_distance_px(box_xywh: Sequence[float], box_xyxy: Sequence[float]) -> float:
    """Return the largest distance between the edges of two boxes, in pixels."""
    x, y, width, height = box_xywh
    left, top, right, bottom = box_xyxy
    return max(abs(x - left), abs(y - top), abs(x + width - right), abs(y + height - bottom))


def _names_other_size(block: RowBlock, index: int, frame: Frame) -> str:
    """Return the problem of an RLE that names another size than its image has; empty for none."""
    size_hw = block.hints.sizes_hw[index] if block.hints else None
    if size_hw is None or size_hw == frame.annotated_hw:
        return ""
    return f"size must be that of the image, {list(frame.annotated_hw)}, got {list(size_hw)}"


class HintComparison:
    """Counts the boxes and areas of a file that are not those of the masks.

    They are not used, but where they differ the masks are not those that the file's author saw:
    they were read in another unit or on another image.

    Args:
        readings: The readings of the masks; the box of a turned mask is turned as well.
    """

    def __init__(self, readings: ExifReadings) -> None:
        self._readings = readings
        self._compared = {"bbox": 0, "area": 0}
        self._differing = {"bbox": 0, "area": 0}
        self._first: dict[str, str] = {}

    def add(
        self, block: RowBlock, rows: Sequence[int], frames: Sequence[Frame | str], masks: RleBatch
    ) -> None:
        """Compare the masks of N rows of a block; an empty list of polygons is not compared.

        The frames are those of all rows of the block.
        """
        hints = block.hints
        if hints is None:
            return
        boxes_xyxy, areas_px = masks.boxes_xyxy(), masks.areas_px()
        outlines_px = 2 * (masks.num_runs + boxes_xyxy[:, 3] - boxes_xyxy[:, 1])  # at least
        columns = boxes_xyxy.tolist(), areas_px.tolist(), outlines_px.tolist()
        for index, of_mask, area_of_mask, outline_px in zip(rows, *columns, strict=True):
            frame, polygons = frames[index], hints.polygons[index]
            if polygons == [] or isinstance(frame, str):
                continue
            box, area = hints.boxes_xywh[index], hints.areas_px[index]
            if box is not None:
                box = self._displayed(box, frame, is_polygon=polygons is not None)
                self._compared["bbox"] += 1
                if box_distance_px(box, of_mask) > BOX_TOLERANCE_PX:
                    x, y, right, bottom = of_mask
                    self._differ("bbox", block, index, [*box], [x, y, right - x, bottom - y])
            if area is not None:
                self._compared["area"] += 1
                if abs(area - area_of_mask) > BOX_TOLERANCE_PX * outline_px:
                    self._differ("area", block, index, area, area_of_mask)

    def notes(self) -> list[str]:
        """Return how many differ, a sentence each."""
        sentences = {
            "bbox": "is more than 2 px from the box of the mask",
            "area": "differs from the mask's by more than 2 px along its outline",
        }
        return [
            f"{key} {sentence}: {self._differing[key]} of {self._compared[key]} annotations "
            f"(the first: {self._first[key]})"
            for key, sentence in sentences.items()
            if self._differing[key]
        ]

    def _displayed(
        self, box_xywh: tuple[float, ...], frame: Frame, *, is_polygon: bool
    ) -> tuple[float, ...]:
        """Return a box of the file as it is on the displayed image."""
        reading = self._readings.reading(frame.record.image_id, is_polygon)
        if reading != AS_STORED or AS_STORED not in frame.grids:
            return box_xywh
        x, y, width, height = box_xywh
        stored = (x, y, x + width, y + height)
        x, y, right, bottom = turn_box(stored, frame.grids[AS_STORED], frame.orientation)
        return x, y, right - x, bottom - y

    def _differ(self, key: str, block: RowBlock, index: int, named: object, found: object) -> None:
        self._differing[key] += 1
        place = f"{block.place(index)}, image {block.images[index].image_id!r:.120}"
        self._first.setdefault(key, f"{place}: {named}, the mask's {found}")
