"""How many detections each step of post-processing took, over the images of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from src.postprocess.category_names import CategoryNames
from src.postprocess.detections import EMPTY, NMS_AND_CAP
from src.postprocess.settings import PostprocessSettings
from src.postprocess.steps import STEPS

# Detections that are not counted under the name of a step: which step took them.
_STEP_OF = {NMS_AND_CAP: "nms", EMPTY: "masks"}


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
        counts = [(step, f"{count:,}") for step, count in self.taken.items() if count]
        if not counts:
            return f"{self.pairs:,} pairs: no step took any"
        took = [" took ".join(counts[0]), *map(" ".join, counts[1:])]
        return f"{self.pairs:,} pairs: {', '.join(took)}; {self.left:,} objects are left"

    @property
    def took_most(self) -> dict[str, int]:
        """How many reached each step that took all or most of them; see ``warnings``."""
        found, reached = {}, self.pairs
        for step, count in self.taken.items():
            takes_most = STEPS[_STEP_OF.get(step, step)].takes_most
            if count == reached > 0 or (2 * count > reached and not takes_most):
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
            acting = settings.step(_STEP_OF.get(step, step))
            why = acting.reason
            if acting.removed_categories:
                why = _describe_removal(acting.removed_categories, categories, category_ids)
            sentences.append(f"{step} took {share} detections that reached it: {why}")
        if not self.pairs:
            sentences.append("the store has no (box, class) pair of these images")
        return sentences


def _describe_removal(
    category_ids: frozenset[int], categories: CategoryNames, predicted: Sequence[int]
) -> str:
    removed = sorted(category_ids & set(predicted))
    kept = sorted(set(predicted) - category_ids)
    return (
        f"postprocess.remove_categories removes {categories.describe(removed)}; of the "
        f"predictions' categories {categories.describe(kept) or 'none'} "
        f"{'is' if len(kept) < 2 else 'are'} kept (postprocess=winner_all_classes keeps all)"
    )
