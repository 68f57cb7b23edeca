"""Folders of mask images: which files there are, and which image each belongs to.

- ``instance_files`` (Data Science Bowl 2018): ``ID/images/`` holds one image and ``ID/masks/`` a
  file for each instance.
- ``instance_ids`` (Cityscapes) and ``label_maps``: a file for each image, by the image's name.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.annotations.image_names import IMAGE_SUFFIXES, ImageFolder, find_image, list_images
from src.annotations.mask_pixels import LOSSLESS_SUFFIXES, MAT_SUFFIX
from src.annotations.mask_settings import (
    AUTO,
    INSTANCE_FILES,
    INSTANCE_IDS,
    LABEL_MAPS,
    MaskImageSettings,
)
from src.annotations.rows import RowError
from src.errors import InputError
from src.quoting import quote

MASK_IMAGES = "mask_images"
"""The format of a folder of mask images, whatever its layout."""

_SUFFIXES = (*IMAGE_SUFFIXES, MAT_SUFFIX)
_IMAGES, _MASKS = "images", "masks"
_NO_DATA = (".", "__MACOSX")  # so begin folders of systems, the latter in archives
_LINKS = "symbolic links"  # so begin the reasons to leave out a link


@dataclass(frozen=True, slots=True)
class MaskedImage:
    """An image and the files of its masks."""

    place: str  # for messages: the file, or the folder of the files, relative to the mask folder
    file_name: str  # of the image, relative to the image folder; empty where there is a problem
    image_path: Path | None  # where it lies, as far as that is known
    masks: tuple[str, ...]  # files, relative to the mask folder
    problem: str = ""  # why the image cannot be told


@dataclass(frozen=True, slots=True)
class MaskFolder:
    """The files of a folder of mask images, by image."""

    directory: Path
    layout: str
    images: Sequence[MaskedImage]
    notes: tuple[str, ...]  # what was left out


def find_masks(
    directory: Path, settings: MaskImageSettings, *, images_directory: Path | None
) -> MaskFolder:
    """Find the mask images of a folder and of the folders below it, as ``list_images`` does.

    Args:
        directory: The folder.
        settings: How it is read.
        images_directory: The folder of the images; None: that of the masks for
            ``instance_files``, and for the others ``image_suffix`` tells the names.

    Raises:
        InputError: No such folder, no mask images in it, or nothing says of which layout they are.
    """
    listed = list_images(directory, suffixes=_SUFFIXES)
    if not listed.names:
        raise InputError(
            "annotations must be a file, a store (a folder with store.json) or a folder of mask "
            f"images, got a folder with neither store.json nor an image ({directory})"
        )
    layout = settings.layout if settings.layout != AUTO else _detect_layout(listed)
    if layout == INSTANCE_FILES:
        images, others = _by_folder(listed, images_directory)
    else:
        images, others = _by_name(listed, settings, images_directory)
    if not any(image.masks for image in images):
        raise InputError(
            f"annotations must be a folder with a mask image, got none of mask_images.layout="
            f"{layout} ({directory})"
        )
    links = {why: names for why, names in listed.left_out.items() if why.startswith(_LINKS)}
    images += [
        MaskedImage(name, "", None, (), f"must be a file of the folder, got one of the {why}")
        for why, names in links.items()
        for name in names
    ]
    rest = {why: names for why, names in listed.left_out.items() if why not in links}
    left_out = ImageFolder(directory, (), {**rest, **others}).describe_left_out()
    notes = () if left_out is None else (left_out.removeprefix(f"{directory}: "),)
    return MaskFolder(directory, layout, images, notes)


def fingerprint(directory: Path) -> str:
    """Return a SHA-256 of the name, size and time of change of each file that can be a mask.

    Raises:
        InputError: The folder cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for name in list_images(directory, suffixes=_SUFFIXES).names:
            status = (directory / name).stat()
            digest.update(repr((name, status.st_size, status.st_mtime_ns)).encode())
    except OSError as error:
        raise InputError(f"{directory}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def _detect_layout(listed: ImageFolder) -> str:
    """Return the one layout that the names of files tell for certain."""
    if any(owner and part == _MASKS for owner, part, _ in map(_split, listed.names)):
        return INSTANCE_FILES
    raise InputError(
        f"mask_images.layout must be {INSTANCE_IDS} or {LABEL_MAPS} for a folder without "
        f"ID/{_MASKS}/, got {AUTO} ({listed.directory}): names do not tell one from the other"
        + (
            f"; {quote('annotations', listed.directory / _MASKS)} "
            f"{quote('images', listed.directory / _IMAGES)} takes the folders in it"
            if (listed.directory / _MASKS).is_dir()
            else ""
        )
    )


def _split(name: str) -> tuple[str, str, str]:
    """Return the folder of an image's files, the folder in it, and the file."""
    folder, _, file = name.rpartition("/")
    owner, _, part = folder.rpartition("/")
    return owner, part, file


def _by_folder(
    listed: ImageFolder, images_directory: Path | None
) -> tuple[list[MaskedImage], dict[str, list[str]]]:
    """Return the images of ``instance_files``, and the files that are of none."""
    files: dict[str, dict[str, list[str]]] = defaultdict(lambda: {_IMAGES: [], _MASKS: []})
    others: list[str] = []
    for name in listed.names:
        owner, part, _ = _split(name)
        if not owner or part not in (_IMAGES, _MASKS) or name.lower().endswith(MAT_SUFFIX):
            others.append(name)
        else:
            files[owner][part].append(name)
    root = listed.directory
    with_masks = _owners_of_masks(root)
    for owner in with_masks - files.keys():  # an empty folder, of an image without an instance
        files[owner][_MASKS] = []
    elsewhere = images_directory is not None and not _is_same(root, images_directory)
    images = []
    for owner, of in sorted(files.items()):
        try:
            if owner not in with_masks:
                raise RowError(f"{_MASKS} must be a folder of mask images, got none")
            file_name, path = _image_beside(
                owner, of[_IMAGES], root, images_directory if elsewhere else None
            )
            images.append(MaskedImage(owner, file_name, path, tuple(of[_MASKS])))
        except RowError as error:
            images.append(MaskedImage(owner, "", None, tuple(of[_MASKS]), str(error)))
    reason = f"that are in no folder ID/{_IMAGES} or ID/{_MASKS}"
    return images, {reason: others} if others else {}


def _owners_of_masks(root: Path) -> set[str]:
    """Return the folders ID of all ID/masks, relative to the root; links count as none."""
    owners = set()
    for folder, below, _ in os.walk(root):
        below[:] = [name for name in below if not name.startswith(_NO_DATA)]
        if _MASKS in below and not os.path.islink(os.path.join(folder, _MASKS)):  # noqa: PTH114, PTH118
            owners.add(Path(folder).relative_to(root).as_posix())
    return owners - {"."}


def _image_beside(
    owner: str, own: Sequence[str], root: Path, images_directory: Path | None
) -> tuple[str, Path | None]:
    """Return the name of an image relative to the image folder, and where it lies."""
    if len(own) > 1:
        raise RowError(f"{_IMAGES} must hold one image, got {len(own)}: {own[0]!r}, {own[1]!r}")
    if images_directory is None:
        if not own:
            raise RowError(f"{_IMAGES} must hold the image of the masks, got none")
        return own[0], find_image(root, own[0])
    file = own[0].rpartition("/")[2] if own else None
    names = [*own, *([f"{owner}/{file}", file] if file else [])]
    names += [f"{owner}{suffix}" for suffix in IMAGE_SUFFIXES if file is None]
    for name in names:
        path = find_image(images_directory, name)
        if path.is_file():
            return name, path
    if not own:
        raise RowError(f"images must hold the image {owner}.png (or .jpg ...), got none")
    return own[0], find_image(root, own[0])


def _by_name(
    listed: ImageFolder, settings: MaskImageSettings, images_directory: Path | None
) -> tuple[list[MaskedImage], dict[str, list[str]]]:
    """Return the images of ``instance_ids`` and ``label_maps``, and the files that are no masks."""
    ending = settings.mask_suffix
    endings = LOSSLESS_SUFFIXES if ending is None else (ending,)
    names: list[str] = []
    others: list[str] = []
    for name in listed.names:
        is_mask = name.lower().endswith(endings) if ending is None else name.endswith(ending)
        (names if is_mask else others).append(name)
    name_of = _image_namer(listed.directory, names, settings, images_directory)
    images = []
    for name in names:
        try:
            file_name = name_of(name if ending is None else name.removesuffix(ending))
            path = None if images_directory is None else find_image(images_directory, file_name)
            images.append(MaskedImage(name, file_name, path, (name,)))
        except (RowError, InputError) as error:
            images.append(MaskedImage(name, "", None, (name,), str(error)))
    reason = f"that do not end in {' '.join(endings)}"
    return _once_each(images), {reason: others} if others else {}


def _image_namer(
    directory: Path,
    masks: Sequence[str],
    settings: MaskImageSettings,
    images_directory: Path | None,
) -> Callable[[str], str]:
    """Return the function from a mask's name without ``mask_suffix`` to its image's name."""
    with_suffix = settings.mask_suffix is None
    if settings.image_suffix is not None:
        suffix = settings.image_suffix
        return lambda name: (_stem(name) if with_suffix else name) + suffix
    if images_directory is None:
        raise InputError(
            "images must be the folder of the images, or mask_images.image_suffix the ending of "
            f"their names (.jpg), got null for both ({directory})"
        )
    own = set(masks) if _is_same(directory, images_directory) else set()
    by_stem: Mapping[str, list[str]] = defaultdict(list)
    for name in list_images(images_directory).names:
        if name not in own:
            by_stem[_stem(name)].append(name)

    def look_up(name: str) -> str:
        stem = _stem(name) if with_suffix else name
        found = by_stem.get(stem, [])
        if len(found) != 1:
            got = f"{len(found)}: {', '.join(map(repr, found[:2]))}" if found else "none"
            raise RowError(f"images must hold one image {stem}.jpg (or .png ...), got {got}")
        return found[0]

    return look_up


def _once_each(images: Sequence[MaskedImage]) -> list[MaskedImage]:
    """Refuse a second file for an image: of ``a.png`` and ``a.mat``, neither is the right one."""
    found = []
    ordered = sorted(images, key=lambda image: (image.file_name, image.place))
    for file_name, group in itertools.groupby(ordered, key=lambda image: image.file_name):
        same = list(group)
        if file_name and len(same) > 1:
            problem = f"must be the one mask image of {file_name!r}, got {len(same)}"
            same = [MaskedImage(one.place, "", None, one.masks, problem) for one in same]
        found += same
    return sorted(found, key=lambda image: image.place)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _is_same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)
