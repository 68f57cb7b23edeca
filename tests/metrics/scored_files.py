"""Files scored as the commands score them."""

from __future__ import annotations

from pathlib import Path

from src.metrics.scoring import compare, open_submission, open_truth, score_comparison


def score_files(submission, ground_truth, averaging="per_class", image_ids=None, **options):
    with (
        open_truth(ground_truth, **options) as truth,
        open_submission(submission, truth) as prediction,
    ):
        comparison = compare(
            truth, prediction, prediction_name=Path(submission).name, image_ids=image_ids
        )
        score = score_comparison(comparison, averaging=averaging)
        return score, comparison.notes
