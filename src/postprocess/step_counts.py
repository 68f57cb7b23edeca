"""How many detections each step of post-processing took, over the images of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from src.postprocess.category_names import CategoryNames
from src.postprocess.detections import EMPTY, NMS_AND_CAP
from src.postprocess.settings import PostprocessSettings

# Of an untrained or very permissive store these two take nearly everything, as they are meant to.
_TAKE_MOST = ("score", "nms", NMS_AND_CAP)


@dataclass(slots=True)
class StepCounts:
    """Counts of (box, class) pairs and of what became of them."""

    pairs: int = 0
    left: int = 0
    taken: dict[str, int] = field(default_factory=dict)  # by step, in the order of the steps

    def add(self, objects: int, taken: Mapping[str, int]) -> None:
        """Count one image.

        Args:
            objects: How many are left.
            taken: What each step took, see ``Detections``.
        """
        self.pairs += objects + sum(taken.values())
        self.left += objects
        for step, count in taken.items():
            self.taken[step] = self.taken.get(step, 0) + count

    def __str__(self) -> str:
        """``1,234 pairs: score took 1,000, nms 34; 200 objects are left``."""
        took = [f"{step} {count:,}" for step, count in self.taken.items() if count]
        if not took:
            return f"{self.pairs:,} pairs: no step took any"
        took[0] = took[0].replace(" ", " took ", 1)
        return f"{self.pairs:,} pairs: {', '.join(took)}; {self.left:,} objects are left"

    @property
    def took_most(self) -> dict[str, int]:
        """How many reached each step that took all or most of them; see ``warnings``."""
        found, reached = {}, self.pairs
        for step, count in self.taken.items():
            if count == reached > 0 or (2 * count > reached and step not in _TAKE_MOST):
                found[step] = reached
            reached -= count
        return found

    def warnings(
        self,
        settings: PostprocessSettings,
        categories: CategoryNames,
        category_ids: Sequence[int],
    ) -> list[str]:
        """Return a sentence for each step that took all or most of what reached it.

        Score threshold and NMS are meant to take most, so they are named only where they took all.

        Args:
            settings: Thresholds and rules.
            categories: Names of the categories.
            category_ids: Of the predictions.
        """
        sentences = []
        for step, reached in self.took_most.items():
            count = self.taken[step]
            share = f"all {count:,}" if count == reached else f"{count:,} of the {reached:,}"
            why = self._reason(step, settings, categories, category_ids)
            sentences.append(f"{step} took {share} detections that reached it: {why}")
        if not self.pairs:
            sentences.append("the store has no (box, class) pair of these images")
        return sentences

    def _reason(
        self,
        step: str,
        settings: PostprocessSettings,
        categories: CategoryNames,
        category_ids: Sequence[int],
    ) -> str:
        if step == "remove":
            removed = sorted(settings.removed_categories & set(category_ids))
            kept = sorted(set(category_ids) - settings.removed_categories)
            return (
                f"postprocess.remove_categories removes {categories.describe(removed)}; of the "
                "predictions' categories "
                f"{categories.describe(kept) or 'none'} {'is' if len(kept) < 2 else 'are'} kept "
                "(postprocess=winner_all_classes keeps all)"
            )
        if step == "min_area":
            return f"postprocess.min_area_px={settings.min_area_px} on {settings.min_area_raster}"
        if step == EMPTY:
            return (
                f"no pixel reaches postprocess.mask_threshold={settings.mask_threshold:g}, or "
                "better masks of the class cover all of it"
            )
        key = {"score": "score_threshold", "cap": "max_per_image"}.get(step, step)
        own = {"score": settings.score_threshold_per_class}.get(step)
        more = f" and {key}_per_class" if own else ""
        return f"postprocess.{key}={getattr(settings, key, '')}{more}"
