"""Validate a submission: every rule of a competition, with the row that breaks it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from src.annotations.categories import read_label_descriptions
from src.annotations.competition import Competition, Filler, raster_hw
from src.annotations.formats import default_labels, detect_format
from src.annotations.image_files import read_size_hw
from src.annotations.image_names import ImageIds, file_name_of, find_image, read_image_ids
from src.annotations.imaterialist_csv import IMATERIALIST_2019, IMATERIALIST_2020
from src.annotations.json_stream import iterate_list, starts_with_list
from src.annotations.rows import Lines, RowError, describe_ids, iterate_lines, split_fields
from src.errors import InputError
from src.io import printable, refuse_special_file
from src.predictions.results import entry_problems
from src.rle import Bitmasks, Rle, RleBatch, Runs, parse_rle, rle_problems
from src.rle.masks import merge_intervals

_ID = re.compile(r"[0-9]{1,9}")
_NO_CATEGORY = -1
_ANY_CATEGORY = -2  # all masks of an image must be disjoint
LARGEST_HW = (1024, 1024)  # of an image of unknown size


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule."""

    row: int  # line of the file, where the header is 1; 0: the file as a whole
    image_id: str  # as the file spells it; empty where no image is concerned
    reason: str

    def __str__(self) -> str:
        place = f"row {self.row}" if self.row else "the file"
        image = f", image {printable(self.image_id)}" if self.image_id else ""
        return f"{place}{image}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Result of a validation: what was read, and every broken rule."""

    rows: int
    images: int
    violations: tuple[Violation, ...]  # by row; missing images come last
    format: str = IMATERIALIST_2019.name  # the rules that were checked


def mask_problems(text: str, size_hw: tuple[int, int], filler: Filler | None) -> list[str]:
    """Return everything that is wrong with an ``EncodedPixels``, the first problem of each kind.

    Args:
        text: ``start length start length ...``, starts counted from 1.
        size_hw: Height and width of the raster.
        filler: The row of an image without detections; None: it has a row without a mask.
    """
    if not text.strip():
        if filler is None:
            return []
        return [
            f"EncodedPixels must be a mask with a pixel, got {text!r:.60}; an image without "
            f"detections has the row `{filler.encoded_pixels}` of class {filler.category_id}"
        ]
    found: dict[str, list[str]] = {}
    for kind, problem in rle_problems(text, size_hw):
        found.setdefault(kind, []).append(problem)
    return [
        problems[0] + (f" (and {len(problems) - 1} more such)" if len(problems) > 1 else "")
        for problems in found.values()
    ]


class MaskCollector:
    """Takes the masks of a file block by block and finds those that overlap.

    Runs are kept, eight bytes each; only the masks of an image and class with an overlap are drawn.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, int], int] = {}  # by image and category, in order
        self._group_sizes_hw: list[tuple[int, int]] = []
        self._runs: list[Runs] = []
        self._counts: list[npt.NDArray[np.int64]] = []
        self._mask_groups: list[int] = []
        self._rows: list[int] = []

    def add(self, masks: RleBatch, *, rows: Sequence[int], keys: Sequence[tuple[str, int]]) -> None:
        """Add N masks.

        Args:
            masks: The runs of each need not ascend nor lie on its raster.
            rows: N row numbers.
            keys: N pairs of image and category; masks of a pair must be disjoint.
        """
        self._runs.append(masks.runs)
        self._counts.append(masks.num_runs)
        self._rows.extend(rows)
        for key, (height, width) in zip(keys, masks.sizes_hw.tolist(), strict=True):
            group = self._groups.setdefault(key, len(self._groups))
            if group == len(self._group_sizes_hw):
                self._group_sizes_hw.append((height, width))
            self._mask_groups.append(group)

    def violations(self) -> list[Violation]:
        """Return a violation for each pair of masks of one image and class that share a pixel."""
        if not self._rows:
            return []
        runs = np.concatenate(self._runs)
        counts = np.concatenate(self._counts)
        groups = np.array(self._mask_groups)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        keys = list(self._groups)
        violations = []
        for group in _groups_with_overlaps(runs, np.repeat(groups, counts)).tolist():
            image_id, category = keys[group]
            masks = np.flatnonzero(groups == group)
            raster_hw = self._group_sizes_hw[group]
            drawn = Bitmasks.of(
                [_as_mask(runs[offsets[mask] : offsets[mask + 1]], raster_hw) for mask in masks],
                raster_hw,
            )
            shared = np.triu(drawn.intersections_px(drawn), k=1)
            rows = [self._rows[mask] for mask in masks]
            violations += [
                Violation(
                    rows[later],
                    image_id,
                    f"EncodedPixels must not overlap row {rows[earlier]} of the same image and "
                    f"class {category}, got {px} shared pixels",
                )
                for earlier, later, px in zip(*np.nonzero(shared), shared[shared > 0], strict=True)
            ]
        return violations


def _groups_with_overlaps(runs: Runs, groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the groups in which some runs share a pixel. Groups: shape (R,), one for each run."""
    order = np.lexsort((runs[:, 0], groups))
    starts = runs[order, 0].astype(np.int64)
    ends = starts + runs[order, 1]
    groups = groups[order]
    # where any two runs overlap, the first that does overlaps the one before it
    shares = (starts[1:] < ends[:-1]) & (groups[1:] == groups[:-1])
    return np.unique(groups[1:][shares])


def _as_mask(runs: Runs, raster_hw: tuple[int, int]) -> Rle:
    """Return runs in any order as a valid mask, cut to the raster."""
    pixels = raster_hw[0] * raster_hw[1]
    starts = np.clip(runs[:, 0].astype(np.int64), 0, pixels)
    ends = np.clip(runs[:, 0].astype(np.int64) + runs[:, 1], 0, pixels)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    starts[1:] = np.maximum(starts[1:], ends[:-1])
    return merge_intervals(starts, ends, raster_hw)[0]


def check_submission(
    path: str | Path,
    *,
    competition: Competition,
    image_ids: Collection[str] | None,
    attribute_names: Mapping[int, str] | None = None,
    sizes_hw: Mapping[str, tuple[int, int]] | None = None,
) -> ValidationReport:
    """Check a whole file.

    Args:
        path: The submission.
        competition: The rules.
        image_ids: Ids that must occur, and may; None: ids are not checked.
        attribute_names: Legal attributes by id; empty: any; None: those of the competition.
        sizes_hw: (height, width) of images by image id, for rasters that depend on them; an image
            that is missing has the largest raster.

    Raises:
        InputError: The file cannot be read.
    """
    if attribute_names is None:
        attribute_names = default_labels(competition.name).attribute_names
    if starts_with_list(Path(path)):
        if competition.file == "coco_results":
            return check_results(Path(path), competition.name)
        reason = (
            f"the header must be {','.join(competition.columns)}, got a JSON list, as COCO results "
            "are; competition=coco checks those"
        )
        return ValidationReport(0, 0, (Violation(1, "", reason),), competition.name)
    if competition.file == "coco_results":
        reason = "the file must be COCO results, a JSON list of detections, got another"
        return ValidationReport(0, 0, (Violation(1, "", reason),), competition.name)
    reader = _Reader(competition, image_ids, attribute_names, sizes_hw or {})
    for lines in iterate_lines(Path(path)):
        reader.read(lines)
    return reader.finish()


def check_results(path: Path, name: str) -> ValidationReport:
    """Check COCO results: every key of every entry, each mask against the size that it names.

    Whether images and categories exist is known where the annotations are: in ``src.score``.

    Args:
        path: The file.
        name: Name of the rules.

    Raises:
        InputError: The file is no JSON list.
    """
    violations, images, count = [], set(), 0
    for position, entry in iterate_list(path):
        count = position + 1
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        known = image_id if type(image_id) in (int, str) else None
        if known is not None:
            images.add(known)
        violations += [
            Violation(count, "" if known is None else printable(known), reason)
            for reason in entry_problems(entry)
        ]
    return ValidationReport(count, len(images), tuple(violations), name)


class _Reader:
    """Reads lines and collects violations."""

    def __init__(
        self,
        competition: Competition,
        image_ids: Collection[str] | None,
        attribute_names: Mapping[int, str],
        sizes_hw: Mapping[str, tuple[int, int]],
    ) -> None:
        self._rules = competition
        self._header = ",".join(competition.columns)
        self._legal_ids = None if image_ids is None else frozenset(image_ids)
        self._names = ImageIds(key="ImageId", add_suffix=True)
        for name in image_ids or ():
            self._names.identify(name)
        self._attribute_names = attribute_names
        self._sizes_hw = sizes_hw
        self._violations: list[Violation] = []
        self._seen: set[str] = set()
        self._rows = 0
        self._places: dict[str, int] | None = None
        self._columns = 0
        self._masks = MaskCollector()
        # labels and images repeat from row to row
        self._label_problems = cache(self._problems_of)
        self._category = cache(self._category_of)
        self._spelling = cache(self._spelling_problem)
        self._raster_hw = cache(self._raster_of)

    def read(self, lines: Lines) -> None:
        """Check the next lines of the file."""
        if self._places is None and lines:
            self._read_header(lines[0])
            lines = lines[1:]
        if self._places is None or not lines:
            return
        self._rows += len(lines)
        fields = ((number, self._fields(number, line)) for number, line in lines)
        rows = {number: row for number, row in fields if row is not None}
        for number, row in rows.items():
            self._check_image_id(number, row["ImageId"])
            label = self._label(row)
            if self._rules.filler is None and not any((*label, row["EncodedPixels"].strip())):
                continue  # of an image without detections
            for reason in self._label_problems(*label):
                self._add(number, row["ImageId"], reason)
        if rows:
            self._check_masks(list(rows), list(rows.values()))

    def finish(self) -> ValidationReport:
        """Check the file as a whole, and return everything that was found."""
        if self._places is None and not self._violations:
            self._add(0, "", f"the header must be {self._header}, got an empty file")
        self._violations += self._masks.violations()
        self._violations.sort(key=lambda violation: violation.row)
        if self._legal_ids is not None and self._places is not None:
            for name in sorted(self._legal_ids - self._seen):
                self._add(0, name, "each image of the sample must have a row, got none")
        violations = tuple(self._violations)
        return ValidationReport(self._rows, len(self._seen), violations, self._rules.name)

    def _add(self, row: int, image_id: str, reason: str) -> None:
        self._violations.append(Violation(row, image_id, reason))

    def _read_header(self, first: tuple[int, bytes]) -> None:
        number, line = first
        text, *names = (
            field.decode("utf-8", errors="backslashreplace")
            for field in (line, *(split_fields(line) or []))
        )
        if tuple(names) != self._rules.columns:
            self._add(number, "", f"the header must be {self._header}, got {text[:100]!r}")
        places = {name: index for index, name in enumerate(names)}
        missing = [name for name in self._rules.columns if name not in places]
        if missing:
            reason = f"the header must have the column {missing[0]}; the rows were not checked"
            self._add(number, "", reason)
            return
        self._places, self._columns = places, len(names)

    def _fields(self, number: int, line: bytes) -> dict[str, str] | None:
        assert self._places is not None  # set by _read_header
        try:
            texts = [field.decode("utf-8") for field in split_fields(line) or []]
        except UnicodeDecodeError as error:
            self._add(number, "", f"the row must be UTF-8 text ({error})")
            return None
        if not texts:
            self._add(number, "", "quotes must enclose a value, got one misplaced or not closed")
            return None
        if len(texts) != self._columns:
            reason = f"the row must have {self._columns} values, got {len(texts)}"
            self._add(number, texts[0], reason)
            return None
        return {name: texts[place] for name, place in self._places.items()}

    def _check_image_id(self, number: int, name: str) -> None:
        self._seen.add(name)
        suffix = PurePosixPath(name).suffix
        if not name:
            self._add(number, "", "ImageId must not be empty")
        elif self._rules.image_id(name) != name:
            self._add(number, name, f"ImageId must not end in {suffix}, got {name!r:.100}")
        elif problem := self._spelling(name):
            self._add(number, name, problem)
        elif self._legal_ids is not None and name not in self._legal_ids:
            self._add(number, name, f"ImageId must be one of the sample's, got {name!r:.100}")

    def _spelling_problem(self, name: str) -> str | None:
        """Return the problem of an image id's spelling, None where it has none."""
        try:
            image_id, _ = self._names.identify(name)
        except RowError as error:
            return str(error)
        if image_id == name:
            return None
        return f"ImageId must be {image_id!r:.100}, one spelling for an image, got {name!r:.100}"

    def _label(self, row: dict[str, str]) -> tuple[str, ...]:
        return tuple(row[column] for column in self._rules.label_columns)

    def _check_masks(self, numbers: list[int], rows: list[dict[str, str]]) -> None:
        names = [row["ImageId"] for row in rows]
        texts = [row["EncodedPixels"] for row in rows]
        sizes_hw = [self._raster_hw(name) for name in names]
        masks, problems = parse_rle(texts, sizes_hw)
        empty = {index for index, text in enumerate(texts) if not text.strip()}
        for index in sorted(empty | problems.keys()):
            for reason in mask_problems(texts[index], sizes_hw[index], self._rules.filler):
                self._add(numbers[index], names[index], reason)
        keys = [(row["ImageId"], self._category(*self._label(row))) for row in rows]
        self._masks.add(masks, rows=numbers, keys=keys)

    def _category_of(self, *label: str) -> int:
        if self._rules.disjoint == "all":
            return _ANY_CATEGORY
        category, _ = self._rules.split_label(*label)
        return int(category) if _ID.fullmatch(category) else _NO_CATEGORY

    def _problems_of(self, *label: str) -> list[str]:
        """Return the problems of a row's label columns."""
        category, attributes = self._rules.split_label(*label)
        problems = []
        known = self._rules.category_names
        if not _ID.fullmatch(category) or (known and int(category) not in known):
            wanted = f" from {describe_ids(known)}" if known else ""
            problems.append(f"category must be a whole number{wanted}, got {category!r:.60}")
        legal = self._attribute_names
        kind = describe_ids(legal) if legal else "a whole number"
        for text in attributes:
            if not _ID.fullmatch(text) or (legal and int(text) not in legal):
                problems.append(f"attribute must be {kind}, got {text!r:.60}")
        ids = [int(text) for text in attributes if _ID.fullmatch(text)]
        shown = printable(",".join(attributes))
        if len(set(ids)) < len(ids):
            problems.append(f"attributes must be different, got {shown}")
        elif "AttributesIds" in self._rules.label_columns and ids != sorted(ids):
            problems.append(f"attributes must ascend, got {shown}")
        return problems

    def _raster_of(self, image_id: str) -> tuple[int, int]:
        """Return height and width of an image's raster."""
        return raster_hw(self._rules.raster, self._sizes_hw.get(image_id, LARGEST_HW))


def validate_submission(
    submission: str | Path,
    *,
    sample_submission: str | Path | None = None,
    images: str | Path | None = None,
    competition: Competition | str | None = None,
    label_descriptions: str | Path | None = None,
) -> ValidationReport:
    r"""Check a submission file against every rule of the competition.

    Args:
        submission: The CSV file.
        sample_submission: CSV with the legal image ids, each of which must have a row; None: image
            ids are not checked.
        images: Folder of the images, for rasters that depend on their sizes; None: unknown.
        competition: The rules, or their name (``Competition.preset``); None: those of 2020 if there
            is a column AttributesIds, otherwise those of 2019.
        label_descriptions: JSON with the legal attributes; None: those of the competition.

    Returns:
        The violations, none if the file is valid, and the numbers of rows and images.

    Raises:
        InputError: A file cannot be read, or a value is not legal.

    Example:
        >>> from pathlib import Path, PurePosixPath
        >>> from src import validate_submission
        >>> rows = "ImageId,EncodedPixels,ClassId\na.jpg,1 5,23\na.jpg,3 9,99\n"
        >>> _ = Path("submission.csv").write_text(rows)
        >>> for violation in validate_submission("submission.csv").violations:
        ...     print(violation)
        row 3, image a.jpg: category must be a whole number from 0 to 45, got '99'
    """
    path = Path(submission)
    refuse_special_file(path)
    if not path.is_file():
        raise InputError(f"submission={path}: no such file")
    if competition is None:
        competition = _competition_of(path)
    elif isinstance(competition, str):
        competition = Competition.preset(competition)
    image_ids = None if sample_submission is None else list(read_image_ids(sample_submission))
    return check_submission(
        path,
        competition=competition,
        image_ids=image_ids,
        attribute_names=None
        if label_descriptions is None
        else read_label_descriptions(label_descriptions).attribute_names,
        sizes_hw={} if images is None else _sizes_hw(Path(images), image_ids or ()),
    )


def _competition_of(path: Path) -> Competition:
    name = "imaterialist_2019"
    with contextlib.suppress(InputError):  # no header at all, which is a violation
        if detect_format(path) == IMATERIALIST_2020.name:
            name = IMATERIALIST_2020.name
    return Competition.preset(name)


def _sizes_hw(folder: Path, image_ids: Iterable[str]) -> dict[str, tuple[int, int]]:
    if not folder.is_dir():
        raise InputError(f"images={folder}: no such folder")
    paths = {name: find_image(folder, file_name_of(name), key="ImageId") for name in image_ids}
    return {name: read_size_hw(path) for name, path in paths.items() if path.exists()}
