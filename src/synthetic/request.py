"""Request for a data set: number, size and difficulty of images; checked before writing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from src.errors import InputError
from src.synthetic.kinds import Kind
from src.synthetic.outfit import can_dress
from src.validation import Share, check_value, check_values, list_of, whole

DRAWING_VERSION = 1
"""Rises when the same seed gives other images, so that two versions are never mixed in a folder."""

SMALLEST_EDGE_PX, LARGEST_EDGE_PX = 64, 12_000
IMAGES_FOR_EACH_TRANSPOSED = 10
FIRST_TRANSPOSED, TRANSPOSED_STEP = 7, 6


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """Options of drawing and storing images.

    Args:
        seed: From which every image follows, each on its own: image 5 is the same in a set of 10
            and in a set of 1,000.
        image_size: Smallest and largest long edge, in px.
        difficulty: 0 to 1. At 0 garments keep to usual colours, trims stand out, poses are calm and
            figures fill the frame; at 1 any colour, own-cloth trims, lively poses, more distance.
        clutter: 0 (empty places, out of focus) to 1 (crowded ones).
        attributes_share: Of the rows, this share carries attributes.
        grayscale_share: Of the images, this share has one channel.
        rotated_share: Of the images, this share is stored turned, with an EXIF orientation.
        num_transposed_images: How many training images have Height and Width exchanged in
            train.csv; none where there are fewer than ten images for each.
        categories: Ids of what the figures wear and the rows tell of; parts that are not among them
            are drawn as pieces of their garments.
    """

    seed: int = 0
    image_size: tuple[int, int] = (768, 1536)
    difficulty: float = 0.5
    clutter: float = 0.5
    attributes_share: float = 0.035
    grayscale_share: float = 0.02
    rotated_share: float = 0.03
    num_transposed_images: int = 2
    categories: tuple[int, ...] = tuple(map(int, Kind))

    def __post_init__(self) -> None:
        kinds = {
            "seed": whole(0, 2**63 - 1),
            "image_size": list_of(whole(SMALLEST_EDGE_PX, LARGEST_EDGE_PX)),
            "difficulty": Share,
            "clutter": Share,
            "attributes_share": Share,
            "grayscale_share": Share,
            "rotated_share": Share,
            "num_transposed_images": whole(0, 1000),
            "categories": list_of(whole(0, max(Kind))),
        }
        check_values(kinds, asdict(self))
        low, high = self.image_size
        if low > high:
            raise InputError(f"image_size must have the smaller edge first, got [{low},{high}]")
        if not can_dress(self.categories):
            raise InputError(
                "categories must have a dress or jumpsuit (10, 11), or something above (0, 1, 2) "
                f"and below (6, 7, 8), got {list(self.categories)}: nobody is dressed in these"
            )

    def is_transposed(self, index: int) -> bool:
        """Return whether the rows of the training image ``index`` may have the wrong size."""
        number, rest = divmod(index - FIRST_TRANSPOSED, TRANSPOSED_STEP)
        return rest == 0 and 0 <= number < self.num_transposed_images


@dataclass(frozen=True, slots=True)
class DatasetRequest:
    """A whole data set in the competition's layout."""

    num_train_images: int
    num_test_images: int
    images: ImageRequest

    def __post_init__(self) -> None:
        kinds = {"num_train_images": whole(1, 10_000_000), "num_test_images": whole(0, 10_000_000)}
        check_values(kinds, {key: getattr(self, key) for key in kinds})

    @property
    def has_transposed(self) -> bool:
        """Return whether there are enough training images for some to have a wrong size."""
        wanted = self.images.num_transposed_images
        return self.num_train_images >= IMAGES_FOR_EACH_TRANSPOSED * wanted

    def describe(self) -> dict[str, Any]:
        """The request as plain values, to compare with that of an earlier run."""
        images = asdict(self.images) | {
            "image_size": list(self.images.image_size),
            "categories": list(self.images.categories),
        }
        return {
            "kind": "photos",
            "drawing_version": DRAWING_VERSION,
            "num_train_images": self.num_train_images,
            "num_test_images": self.num_test_images,
            **images,
        }


@dataclass(frozen=True, slots=True)
class CsvRequest:
    """A train.csv alone, of any length, with rows as long as the real ones.

    Args:
        num_rows: Objects to write.
        seed: From which every image follows.
        image_size: Smallest and largest long edge, in px.
        attributes_share: Of the rows, this share carries attributes.
    """

    num_rows: int
    seed: int = 0
    image_size: tuple[int, int] = (3000, 6000)
    attributes_share: float = 0.035

    def __post_init__(self) -> None:
        check_value("num_rows", self.num_rows, whole(1, 1_000_000_000))
        ImageRequest(
            seed=self.seed, image_size=self.image_size, attributes_share=self.attributes_share
        )

    def describe(self) -> dict[str, Any]:
        """The request as plain values, to compare with that of an earlier run."""
        values = asdict(self) | {"image_size": list(self.image_size)}
        return {"kind": "csv", "drawing_version": DRAWING_VERSION, **values}


def parse_image_size(value: Any, default: tuple[int, int]) -> tuple[int, int]:
    """``image_size`` as a user gives it: a long edge, or [smallest, largest]; None: the default."""
    if value is None:
        return default
    edges = value if isinstance(value, list | tuple) else [value, value]
    if len(edges) != 2 or any(isinstance(e, bool) or not isinstance(e, int) for e in edges):
        raise InputError(
            "image_size must be the long edge in px (image_size=1024) or its smallest and largest "
            f"value (image_size=[768,1536]), got {value}"
        )
    return int(edges[0]), int(edges[1])


def parse_categories(value: Any) -> tuple[int, ...]:
    """``categories`` as a user gives it: a list of ids; None: all."""
    if value is None:
        return tuple(map(int, Kind))
    if not isinstance(value, list | tuple):
        raise InputError(f"categories must be a list of category ids, as [1,6,10,23], got {value}")
    return tuple(value)
