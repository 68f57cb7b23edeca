"""Vector form of an image: pieces of cloth and skin, parts, annotated instances."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from src.synthetic.fabrics import Fabric
from src.synthetic.geometry import PointList, Points
from src.synthetic.kinds import Kind
from src.synthetic.palette import Colour


@dataclass(slots=True)
class Mark:
    """A line of a ``width`` in head heights (0: a filled shape) on a piece; nobody annotates it."""

    points: Points
    colour: Colour
    width: float = 0.0
    closed: bool = False


@dataclass(slots=True)
class Fold:
    """A soft crease: ``strength`` below 0 is a shadow, above 0 a light. Width in head heights."""

    points: Points
    width: float
    strength: float


@dataclass(slots=True)
class Part:
    """An annotated part (pocket, zipper, collar, ...) drawn on one piece and clipped to it."""

    outline: Points
    fabric: Fabric
    object_index: int
    marks: list[Mark] = field(default_factory=list)
    edge: float = 1.0
    """Width of the outline, 1 being the usual one."""


@dataclass(slots=True)
class Piece:
    """A flat shape with a fabric, shading and outline, which hides what was drawn before it."""

    outlines: tuple[Points, ...]
    fabric: Fabric
    objects: tuple[int, ...] = ()
    """Indices of the objects it belongs to: a sleeve's are the sleeve and the garment."""
    parts: list[Part] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    folds: list[Fold] = field(default_factory=list)
    edge: float = 1.0
    shadow: float = 0.30
    """How dark a shadow it casts on what lies under it, 0 to 1."""
    opacity: float = 1.0


@dataclass(slots=True)
class SceneObject:
    """Row of the annotation file to write."""

    kind: Kind
    attributes: tuple[int, ...] = ()


class Drawing:
    """Collects pieces in painting order (the first is farthest away) and the objects they show."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.objects: list[SceneObject] = []

    def add_object(self, kind: Kind) -> int:
        """Start an object; pieces and parts refer to it by the index returned."""
        self.objects.append(SceneObject(kind))
        return len(self.objects) - 1

    def add(
        self, outline: PointList | tuple[Points, ...], fabric: Fabric, *objects: int, **rest: float
    ) -> Piece:
        """Put a piece on top of all pieces so far."""
        outlines = outline if isinstance(outline, tuple) else (np.asarray(outline, np.float64),)
        piece = Piece(outlines=outlines, fabric=fabric, objects=objects, **rest)  # type: ignore[arg-type]
        self.pieces.append(piece)
        return piece

    def add_part(
        self, piece: Piece, kind: Kind, outline: PointList, fabric: Fabric, edge: float = 1.0
    ) -> Part:
        """Draw an annotated part on a piece that was added before."""
        points = np.asarray(outline, dtype=np.float64)
        part = Part(points, fabric, object_index=self.add_object(kind), edge=edge)
        piece.parts.append(part)
        return part
