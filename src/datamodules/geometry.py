"""Geometric augmentation: transforms that move instances, of an image and its masks alike.

The winning recipe has none of them (S4). They act on a view that is resized already, in this order:
scale and crop, rotation, quarter turn, flips, and instances pasted from another view.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
import numpy.typing as npt

from src.errors import InputError
from src.validation import Count, Share, check_values, number

FILL_RGB = (124, 116, 104)  # ImageNet's mean, which the preprocessor makes zero as it does padding


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImage:
    """An image and the masks of its N instances, on one grid."""

    image: npt.NDArray[np.uint8]  # (H, W, 3), RGB
    labels: npt.NDArray[np.int64]  # (N,)
    masks: npt.NDArray[np.uint8]  # (N, H, W), 0 or 1

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def areas_px(self) -> npt.NDArray[np.int64]:
        """Return the number of pixels of each mask, shape (N,)."""
        areas: npt.NDArray[np.int64] = self.masks.sum(axis=(1, 2), dtype=np.int64)
        return areas

    def boxes_xyxy(self) -> npt.NDArray[np.float32]:
        """Return the half-open box of each mask, shape (N, 4); zeros where it has no pixel."""
        boxes = np.zeros((len(self.masks), 4), dtype=np.float32)
        for first, used in ((0, self.masks.max(axis=1)), (1, self.masks.max(axis=2))):
            boxes[:, first] = used.argmax(axis=1)
            end = used.shape[1] - used[:, ::-1].argmax(axis=1)
            boxes[:, first + 2] = np.where(used.max(axis=1), end, 0)
        return boxes

    def keep(self, kept: npt.NDArray[np.bool_]) -> LabelledImage:
        """Return the image with the instances that N booleans choose."""
        if kept.all():
            return self
        return replace(self, labels=self.labels[kept], masks=self.masks[kept])


@dataclass(frozen=True, slots=True)
class Geometry:
    """The random choices of one view, drawn before a pixel is read."""

    scaled_hw: tuple[int, int]  # the view's size before the crop
    crop_yx: tuple[int, int]  # first row and column of the crop
    size_hw: tuple[int, int]  # of the crop, and of the view before a quarter turn
    rotation_degrees: float  # counter-clockwise, about the centre; 0: none
    quarter_turns: int  # counter-clockwise, 0 to 3
    vertical_flip: bool


@dataclass(frozen=True, kw_only=True)
class GeometricAugmentation:
    """Probabilities and ranges of the transforms that move instances; by default each is off.

    Args:
        vertical_flip_probability: Of a flip upside down, in [0, 1].
        quarter_turn_probability: Of a turn by 90, 180 or 270 degrees, each as likely, in [0, 1].
        rotation_probability: Of a rotation by any angle, in [0, 1].
        rotation_degrees: Greatest angle either way, in [0, 180]; drawn uniformly. The corners that
            come into view have the mean colour.
        scale_jitter: Least and greatest factor on the view's size, drawn uniformly in its
            logarithm; what is then larger than the view is cropped to it, at a place drawn
            uniformly. None: off.
        copy_paste_probability: That instances of another training image are pasted into the view,
            in [0, 1] (Ghiasi et al., Simple Copy-Paste, CVPR 2021).
        copy_paste_max_instances: Greatest number of them; how many is drawn uniformly from 1 on.
        min_visible_share: An instance of which a crop, a rotation or a pasted instance leaves less
            than this share of its pixels is left out, in [0, 1].

    Raises:
        InputError: A value is not legal; names its key.
    """

    vertical_flip_probability: float = 0.0
    quarter_turn_probability: float = 0.0
    rotation_probability: float = 1.0
    rotation_degrees: float = 0.0
    scale_jitter: tuple[float, float] | None = None
    copy_paste_probability: float = 0.0
    copy_paste_max_instances: int = 10
    min_visible_share: float = 0.1

    def __post_init__(self) -> None:
        prefix = "datamodule.geometric_augmentation."
        legal = {
            "vertical_flip_probability": Share,
            "quarter_turn_probability": Share,
            "rotation_probability": Share,
            "rotation_degrees": number(least=0, most=180, legal="a number from 0 to 180"),
            "copy_paste_probability": Share,
            "copy_paste_max_instances": Count,
            "min_visible_share": Share,
        }
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        check_values(legal, values, prefix=prefix)
        if self.scale_jitter is not None:
            factors = list(self.scale_jitter)
            if len(factors) != 2 or not 0.1 <= factors[0] <= factors[1] <= 10:
                raise InputError(
                    f"{prefix}scale_jitter must be null or two factors from 0.1 to 10, the least "
                    f"first, got {factors}"
                )

    @property
    def is_off(self) -> bool:
        """Whether no transform can happen."""
        return (
            self.vertical_flip_probability == 0
            and self.quarter_turn_probability == 0
            and self.max_rotation_degrees == 0
            and self.scale_jitter is None
            and not self.pastes
        )

    @property
    def max_rotation_degrees(self) -> float:
        """Greatest angle of a rotation; 0 where there is none."""
        return self.rotation_degrees if self.rotation_probability > 0 else 0.0

    @property
    def pastes(self) -> bool:
        """Whether instances of other images can be pasted."""
        return self.copy_paste_probability > 0 and self.copy_paste_max_instances > 0

    def draw(
        self, size_hw: tuple[int, int], *, least_edge_px: int, generator: np.random.Generator
    ) -> Geometry:
        """Draw the choices of a view.

        Args:
            size_hw: Height and width of the view in pixels.
            least_edge_px: No scale makes an edge shorter than this, or than it is.
            generator: The only source of randomness.
        """
        scaled_hw, crop_yx, crop_hw = size_hw, (0, 0), size_hw
        if self.scale_jitter is not None:
            factor = float(np.exp(generator.uniform(*np.log(self.scale_jitter))))
            factor = max(factor, min(1.0, least_edge_px / min(size_hw)))
            scaled_hw = (_scaled(size_hw[0], factor), _scaled(size_hw[1], factor))
            crop_hw = (min(size_hw[0], scaled_hw[0]), min(size_hw[1], scaled_hw[1]))
            crop_yx = (
                int(generator.integers(scaled_hw[0] - crop_hw[0], endpoint=True)),
                int(generator.integers(scaled_hw[1] - crop_hw[1], endpoint=True)),
            )
        degrees = 0.0
        if self.max_rotation_degrees > 0 and generator.random() < self.rotation_probability:
            degrees = float(generator.uniform(-self.rotation_degrees, self.rotation_degrees))
        turns = 0
        if generator.random() < self.quarter_turn_probability:
            turns = int(generator.integers(1, 4))
        return Geometry(
            scaled_hw=scaled_hw,
            crop_yx=crop_yx,
            size_hw=crop_hw,
            rotation_degrees=degrees,
            quarter_turns=turns,
            vertical_flip=bool(generator.random() < self.vertical_flip_probability),
        )

    def draw_num_pasted(self, generator: np.random.Generator) -> int:
        """Draw how many instances are pasted, 0 for none."""
        if not self.pastes or generator.random() >= self.copy_paste_probability:
            return 0
        return int(generator.integers(1, self.copy_paste_max_instances, endpoint=True))

    def keep_visible(
        self, view: LabelledImage, areas_before_px: npt.NDArray[np.float64]
    ) -> LabelledImage:
        """Return the view without the instances that lost too much of their pixels, or all.

        Args:
            view: N instances.
            areas_before_px: Shape (N,), their pixels before, on the scale of the view.
        """
        areas = view.areas_px()
        return view.keep((areas > 0) & (areas >= self.min_visible_share * areas_before_px))

    def paste(
        self, view: LabelledImage, other: LabelledImage, *, generator: np.random.Generator, num: int
    ) -> LabelledImage:
        """Paste up to ``num`` instances of another view over a view, where they are.

        The pasted ones are cut at the edges of the view, and what lies below them is cut out of the
        masks; instances of either that lose too much are left out.

        Args:
            view: The view, which is not changed.
            other: The view to copy from, of any size.
            generator: Draws which instances.
            num: Greatest number.
        """
        height, width = view.size_hw
        chosen = generator.permutation(len(other.labels))[:num]
        masks = np.zeros((len(chosen), height, width), dtype=np.uint8)
        rows, columns = min(height, other.size_hw[0]), min(width, other.size_hw[1])
        masks[:, :rows, :columns] = other.masks[chosen, :rows, :columns]
        pasted = self.keep_visible(
            LabelledImage(view.image, other.labels[chosen], masks),
            other.areas_px()[chosen].astype(np.float64),
        )
        if not len(pasted.labels):
            return view
        # Where pasted instances overlap each other they do so in their own image, too.
        covered = pasted.masks.max(axis=0) > 0
        image = view.image.copy()
        image[covered] = other.image[:rows, :columns][covered[:rows, :columns]]
        below = self.keep_visible(
            replace(view, masks=view.masks * ~covered), view.areas_px().astype(np.float64)
        )
        return LabelledImage(
            image,
            np.concatenate([below.labels, pasted.labels]),
            np.concatenate([below.masks, pasted.masks]),
        )


def _scaled(edge_px: int, factor: float) -> int:
    return max(1, int(edge_px * factor + 0.5))


def crop(array: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
    """Return the crop of an image or a mask of ``geometry.scaled_hw``, shape (H, W, ...)."""
    top, left = geometry.crop_yx
    height, width = geometry.size_hw
    return array[top : top + height, left : left + width]


def rotate(view: LabelledImage, degrees: float) -> LabelledImage:
    """Rotate a view counter-clockwise about its centre; its size stays.

    Pixels of the image are mixed bilinearly, those of masks taken from the nearest.
    """
    if degrees == 0:
        return view
    height, width = view.size_hw
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    image = cv2.warpAffine(view.image, matrix, (width, height), borderValue=FILL_RGB)
    masks = np.empty_like(view.masks)
    for mask, rotated in zip(view.masks, masks, strict=True):
        cv2.warpAffine(mask, matrix, (width, height), dst=rotated, flags=cv2.INTER_NEAREST)
    return replace(view, image=np.asarray(image, dtype=np.uint8), masks=masks)


def turn_and_flip(view: LabelledImage, geometry: Geometry, *, flip: bool) -> LabelledImage:
    """Turn a view by quarters, then flip it, exactly.

    Args:
        view: The view.
        geometry: Says how many quarter turns, and whether it is flipped upside down.
        flip: Whether it is flipped left to right, too.
    """
    image, masks = view.image, view.masks
    if geometry.quarter_turns:
        image = np.rot90(image, geometry.quarter_turns)
        masks = np.rot90(masks, geometry.quarter_turns, axes=(1, 2))
    if geometry.vertical_flip:
        image, masks = image[::-1], masks[:, ::-1]
    if flip:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    return replace(view, image=np.ascontiguousarray(image), masks=np.ascontiguousarray(masks))
