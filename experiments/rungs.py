"""The rungs of the ladder, and the commands that each is made of."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from src.errors import InputError

DIRECTORY = "outputs/ladder"
TRUTH = f"{DIRECTORY}/data/test_truth.csv"
# As demo, with jacket and skirt, which carry attributes, too. 0.2 of all rows have attributes: as
# the generator counts, 85% of those of the categories 0 to 12.
IMAGES = (
    "seed=2 image_size=256 difficulty=0 clutter=0.2 categories=[1,4,6,8,10,23,31] "
    "attributes_share=0.2"
)
# S10's sizes, scaled: 192 px, in the middle of what training has, stands for 1200.
# A floor of 0.3 leaves out nothing that a threshold of 0.5 keeps, and spares the masks.
VIEWS = "tta=three_scales_flip tta.scales=[[160,320],[192,320],[224,320]] module.min_score=0.3"
PREDICTIONS = {
    "one_view": f"checkpoint={DIRECTORY}/checkpoints/best.ckpt tta=none module.min_score=0.001",
    "six_views": f"checkpoint={DIRECTORY}/checkpoints/best.ckpt {VIEWS}",
    "three_models_six_views": f"ensemble=top3 {VIEWS}",
}
TUNED = "postprocess=winner_all_classes"
WITHOUT_S12 = f"{TUNED} postprocess.suppress_overlaps=false postprocess.min_area_px=0"


@dataclass(frozen=True, slots=True)
class Rung:
    """One row of the winner's recipe that has a leaderboard score, or takes part in one."""

    name: str
    what: str
    folder: str  # below experiments/
    leaderboard: float | None  # None: no figure before the next rung is known
    predictions: str  # key of PREDICTIONS
    settings: str  # of python -m src.postprocess

    @property
    def submission(self) -> str:
        """The file that the rung hands in."""
        return f"{DIRECTORY}/submissions/{self.name.lower()}.csv"


LADDER = (
    Rung("S8", "default thresholds", "s8_defaults", 0.21913, "one_view", "postprocess=default"),
    Rung("S9", "tuned thresholds", "s9_thresholds", 0.30011, "one_view", WITHOUT_S12),
    Rung("S10", "test-time augmentation", "s10_tta", 0.31074, "six_views", WITHOUT_S12),
    Rung(
        "S11", "ensemble of three", "s11_ensemble", 0.31626, "three_models_six_views", WITHOUT_S12
    ),
    Rung(
        "S12",
        "classes with attributes removed",
        "s12_classes",
        0.33511,
        "three_models_six_views",
        f"{WITHOUT_S12} postprocess.remove_categories=[attribute_classes]",
    ),
    Rung(
        "S13",
        "overlaps suppressed",
        "s13_s14_overlaps_and_small_objects",
        None,
        "three_models_six_views",
        f"{TUNED} postprocess.min_area_px=0 postprocess.remove_categories=[attribute_classes]",
    ),
    Rung(
        "S14",
        "objects under 20 px deleted",
        "s13_s14_overlaps_and_small_objects",
        0.33621,
        "three_models_six_views",
        f"{TUNED} postprocess.remove_categories=[attribute_classes]",
    ),
)
FOLDERS = tuple(dict.fromkeys(rung.folder for rung in LADDER))


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the experiment is."""

    num_train_images: int = 330
    num_validation_images: int = 30
    num_test_images: int = 160
    steps: int = 1200


def steps(rung: Rung, sizes: Sizes) -> tuple[str, ...]:
    """The commands that make the rung's submission, in their order; rungs share the first ones."""
    store = f"{DIRECTORY}/predictions_{rung.predictions}"
    return (
        f"python -m src.synthesize output={DIRECTORY}/data {IMAGES} "
        f"num_train_images={sizes.num_train_images} num_test_images={sizes.num_test_images}",
        f"python -m src.split annotations={DIRECTORY}/data/train.csv "
        f"images={DIRECTORY}/data/train num_validation_images={sizes.num_validation_images} "
        f"output={DIRECTORY}/data/split.json",
        f"python -m src.train +experiment=ladder trainer.max_steps={sizes.steps}",
        f"python -m src.predict +experiment=ladder predict_split=test "
        f"{PREDICTIONS[rung.predictions]} predictions={store}",
        f"python -m src.postprocess predictions={store} {rung.settings} output={rung.submission}",
    )


def score_command(rung: Rung) -> str:
    """What shows the rung's score with its classes; the ladder itself scores each image."""
    return (
        f"python -m src.score submission={rung.submission} annotations={TRUTH} use_attributes=true"
    )


def arguments(command: str) -> list[str]:
    """The words of a command as a shell would pass them, without ``python``."""
    return shlex.split(command)[1:]


def rungs_of(folders: Sequence[str]) -> tuple[Rung, ...]:
    """The rungs of some folders; all where none is named.

    Raises:
        InputError: no such folder; names the legal ones.
    """
    for folder in folders:
        if folder not in FOLDERS:
            raise InputError(f"rung must be one of {', '.join(FOLDERS)}, got {folder!r}")
    return tuple(rung for rung in LADDER if not folders or rung.folder in folders)


def rung_before(rung: Rung) -> Rung | None:
    """The rung that this one is compared with; None for the first."""
    place = LADDER.index(rung)
    return LADDER[place - 1] if place else None
