"""The ladder on photographs: ``python -m experiments.ladder data=street annotations=A images=I``.

A data set is a COCO file and a folder. A cascade is trained from ImageNet's backbone, a stratified
part of the images validates, and each rung is scored on these images; thresholds that are searched
are cross-validated, so no image is scored by thresholds that it helped to choose. Beside it: the
same run from random weights, and one short run for each kind of augmentation.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from src.errors import InputError


@dataclass(frozen=True, slots=True)
class Recipe:
    """What differs between the two data sets."""

    name: str
    experiment: str
    competition: str
    num_validation_images: int
    scales: str  # of S10, the middle one being that of one view
    views: str  # name of the option of tta that flips or turns them
    num_trials: int
    cap: str  # where an image holds more instances than the cap of the defaults, 100
    areas: str  # of the smallest detections that the search tries, in pixels of the raster
    augmentations: tuple[tuple[str, str], ...]  # what, and the overrides
    may_show_pixels: bool  # whether the licence of the images lets drawings of them be published
    source: str


GEOMETRY = "datamodule.geometric_augmentation"
PLAIN = (
    f"datamodule.pixel_augmentations=null {GEOMETRY}.vertical_flip_probability=0 "
    f"{GEOMETRY}.quarter_turn_probability=0"
)
FROM_SCRATCH = (  # nothing random stays frozen, and the batch statistics are the images' own
    "module.backbone_weights=null module.detector.backbone.frozen_stages=-1 "
    "module.detector.backbone.norm_eval=false"
)
ROTATION = f"{GEOMETRY}.rotation_degrees=10"
JITTER = f"'{GEOMETRY}.scale_jitter=[0.7,1.5]'"
COPY_PASTE = f"{GEOMETRY}.copy_paste_probability=0.5"

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="street",
            experiment="street",
            competition="imaterialist_2019",
            num_validation_images=80,
            scales="[[240,420],[288,500],[336,580]]",
            views="flip",
            num_trials=200,
            cap="",
            areas="space.min_area_px=[0,20,50,100,200]",
            augmentations=(
                ("cutout, brightness and contrast, JPEG (S4)", PLAIN.partition(" ")[2]),
                ("rotation by up to 10 degrees", f"{PLAIN} {ROTATION}"),
                ("scale jitter 0.7 to 1.5 with crop", f"{PLAIN} {JITTER}"),
                ("copy-paste", f"{PLAIN} {COPY_PASTE}"),
            ),
            may_show_pixels=False,
            source="Clothing Co-Parsing (Yang, Luo, Lin, CVPR 2014)",
        ),
        Recipe(
            name="nuclei",
            experiment="nuclei",
            competition="dsb_2018",
            num_validation_images=52,
            scales="[[320,320],[384,384],[448,448]]",
            views="flip",
            num_trials=200,
            cap="postprocess.max_per_image=null space.max_per_image=null",
            areas="space.min_area_px=[0,5,10,20,40] postprocess.min_area_raster=native",
            augmentations=(
                ("cutout, brightness and contrast, JPEG (S4)", PLAIN.partition(" ")[2]),
                (
                    "vertical flip and quarter turns",
                    "datamodule.pixel_augmentations=null "
                    f"{GEOMETRY}.vertical_flip_probability=0.5 "
                    f"{GEOMETRY}.quarter_turn_probability=0.75",
                ),
                (
                    "rotation by any angle",
                    f"{PLAIN} {GEOMETRY}.rotation_degrees=180",
                ),
                ("scale jitter 0.7 to 1.5 with crop", f"{PLAIN} {JITTER}"),
                ("copy-paste", f"{PLAIN} {COPY_PASTE}"),
            ),
            may_show_pixels=True,
            source="Data Science Bowl 2018, stage 1 (CC0)",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class DataSet:
    """Where a data set lies, and how large the experiment is.

    Args:
        recipe: What is done with it.
        annotations: The COCO file.
        images: The folder of its images.
        test_images: The folder of the images to hand in predictions for; None: none.
        steps: Of training; None: as the experiment has them.
        augmentation_steps: Of each of the short trainings.
        overrides: Further keys of the training, for all runs.
    """

    recipe: Recipe
    annotations: Path
    images: Path
    test_images: Path | None
    steps: int | None = None
    augmentation_steps: int = 600
    overrides: tuple[str, ...] = ()

    @property
    def directory(self) -> str:
        """Where everything is written."""
        return f"outputs/{self.recipe.name}"

    @property
    def data(self) -> str:
        """The keys that name the data in every command."""
        return f"annotations={quoted(self.annotations)} images={quoted(self.images)}"


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of a table: how it is made, and the file with its images' scores."""

    name: str
    what: str
    commands: tuple[str, ...]
    scores: str  # a score file, below the folder where commands run


def quoted(path: Path) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(path))


def split_command(data: DataSet) -> str:
    """Return the command that makes the split."""
    return (
        f"python -m src.split {data.data} "
        f"num_validation_images={data.recipe.num_validation_images} "
        f"output={data.directory}/split.json"
    )


def training_command(data: DataSet, name: str, *overrides: str, steps: int | None = None) -> str:
    """Return the command of a training; its run lies in ``outputs/NAME/runs/RUN``."""
    words = [
        f"python -m src.train +experiment={data.recipe.experiment} {data.data}",
        f"datamodule.split_file={data.directory}/split.json",
        f"hydra.run.dir={data.directory}/runs/{name}",
        *data.overrides,
        *overrides,
    ]
    if steps is not None:
        words.append(f"trainer.max_epochs=-1 trainer.max_steps={steps}")
    return " ".join(word for word in words if word)


def prediction_command(data: DataSet, store: str, *overrides: str) -> str:
    """Return the command that predicts the validation images with checkpoints of a run."""
    return " ".join(
        [
            f"python -m src.predict {data.data} predict_split=validation",
            f"datamodule.split_file={data.directory}/split.json",
            *overrides,
            f"hydra.run.dir={data.directory}/predict",
            f"predictions={data.directory}/stores/{store}",
        ]
    )


def scored(data: DataSet, store: str, name: str, settings: str) -> tuple[str, str]:
    """Return the command that scores a store with given settings, and its score file."""
    folder = f"{data.directory}/scores/{name}"
    return (
        f"python -m src.postprocess predictions={data.directory}/stores/{store} {settings} "
        f"competition={data.recipe.competition} {data.data} output={folder}/validation.csv"
    ), f"{folder}/score.json"


def searched(data: DataSet, store: str, name: str, settings: str = "") -> tuple[str, str]:
    """Return the command that searches settings, and the file of the cross-validated scores."""
    folder = f"{data.directory}/search/{name}"
    return " ".join(
        word
        for word in [
            f"python -m src.search predictions={data.directory}/stores/{store} {data.data}",
            f"competition={data.recipe.competition} name={name} output_dir={folder}",
            f"config_dir={data.directory}/found num_trials={data.recipe.num_trials}",
            "space.nms_kind=[class_wise]",
            data.recipe.cap,
            settings,
        ]
        if word
    ), f"{folder}/cross_validated.json"


NOTHING_AFTER_MASKS = "postprocess.suppress_overlaps=false postprocess.min_area_px=0"


def ladder(data: DataSet) -> tuple[Variant, ...]:
    """Return the rungs."""
    run = f"{data.directory}/runs/main/checkpoints"
    recipe = data.recipe
    # what the search tries begins at 0.1; a lower floor costs masks that it would drop
    views = f"tta={recipe.views} tta.scales={recipe.scales} module.min_score=0.1"
    base = (split_command(data), training_command(data, "main", steps=data.steps))
    predictions = {
        "one_view": prediction_command(data, "one_view", f"checkpoint={run}/best.ckpt"),
        "views": prediction_command(data, "views", f"checkpoint={run}/best.ckpt {views}"),
        "three_models": prediction_command(
            data, "three_models", f"ensemble=top3 ensemble.checkpoint_dir={run} {views}"
        ),
    }
    plain = f"space.min_area_px=null {NOTHING_AFTER_MASKS}"
    disjoint = "postprocess.suppress_overlaps=true"
    rows: list[tuple[str, str, str, tuple[str, str]]] = [
        (
            "S8",
            "default thresholds",
            "one_view",
            scored(data, "one_view", "s8", "postprocess=default"),
        ),
        (
            "S9",
            "winner's thresholds",
            "one_view",
            scored(data, "one_view", "s9", f"postprocess=winner_all_classes {NOTHING_AFTER_MASKS}"),
        ),
        ("", "searched thresholds", "one_view", searched(data, "one_view", "one_view", plain)),
        ("S10", "flips and scales", "views", searched(data, "views", "s10", plain)),
        ("S11", "three checkpoints", "three_models", searched(data, "three_models", "s11", plain)),
        (
            "S13",
            "overlaps suppressed",
            "three_models",
            searched(
                data,
                "three_models",
                "s13",
                f"space.min_area_px=null postprocess.min_area_px=0 {disjoint}",
            ),
        ),
        (
            "S14",
            "small detections deleted",
            "three_models",
            searched(data, "three_models", "s14", f"{disjoint} {recipe.areas}"),
        ),
    ]
    return tuple(
        Variant(name, what, (*base, predictions[store], command), scores)
        for name, what, store, (command, scores) in rows
    )


def backbones(data: DataSet) -> tuple[Variant, ...]:
    """Return the run from ImageNet's backbone, and the same from random weights."""
    run = f"{data.directory}/runs/random/checkpoints"
    random = (
        split_command(data),
        training_command(data, "random", FROM_SCRATCH, steps=data.steps),
        prediction_command(data, "random", f"checkpoint={run}/best.ckpt"),
    )
    plain = f"space.min_area_px=null {NOTHING_AFTER_MASKS}"
    pretrained = next(rung for rung in ladder(data) if rung.what == "searched thresholds")
    command, scores = searched(data, "random", "random", plain)
    return (
        Variant("", "random weights, searched thresholds", (*random, command), scores),
        Variant(
            "",
            "ImageNet's backbone, searched thresholds",
            pretrained.commands,
            pretrained.scores,
        ),
    )


def augmentations(data: DataSet) -> tuple[Variant, ...]:
    """Return one short training for each kind of augmentation, the first with flips alone."""
    found = []
    for number, (what, overrides) in enumerate(
        (("horizontal flip alone", PLAIN), *data.recipe.augmentations)
    ):
        name = f"augmentation_{number}"
        settings = f"postprocess=winner_all_classes {NOTHING_AFTER_MASKS}"
        command, scores = scored(data, name, name, settings)
        found.append(
            Variant(
                "",
                what,
                (
                    split_command(data),
                    training_command(data, name, overrides, steps=data.augmentation_steps),
                    prediction_command(
                        data,
                        name,
                        f"checkpoint={data.directory}/runs/{name}/checkpoints/last.ckpt",
                    ),
                    command,
                ),
                scores,
            )
        )
    return tuple(found)


def submission_commands(data: DataSet, settings: str = "s14") -> tuple[str, ...]:
    """Return the commands that make and check the submission of the test images.

    Args:
        data: The data set.
        settings: The rung whose settings are taken: S13 or S14, whose masks are disjoint.
    """
    folder = data.directory
    run = f"{folder}/runs/main/checkpoints"
    recipe = data.recipe
    assert data.test_images is not None
    found = f"file://{Path(folder).resolve()}/found"
    return (
        f"python -m src.predict ensemble=top3 ensemble.checkpoint_dir={run} "
        f"images={quoted(data.test_images)} predict_split=test tta={recipe.views} "
        f"tta.scales={recipe.scales} module.min_score=0.1 hydra.run.dir={folder}/predict "
        f"predictions={folder}/stores/test",
        f"python -m src.postprocess predictions={folder}/stores/test postprocess={settings} "
        f"'hydra.searchpath=[{found}]' competition={recipe.competition} "
        f"output={folder}/submission.csv",
        f"python -m src.validate_submission submission={folder}/submission.csv "
        f"competition={recipe.competition} images={quoted(data.test_images)}",
    )


def data_set(values: dict[str, str]) -> tuple[DataSet, tuple[str, ...]]:
    """Return the data set that ``key=value`` words name, and the wanted tables.

    Raises:
        InputError: A key or a value is not legal; names the legal ones.
    """
    legal = (
        "data",
        "annotations",
        "images",
        "test_images",
        "tables",
        "steps",
        "augmentation_steps",
    )
    overrides = tuple(f"{k}={v}" for k, v in values.items() if "." in k)
    if unknown := [key for key in values if key not in legal and "." not in key]:
        raise InputError(f"key must be one of {', '.join(legal)}, got {unknown[0]}")
    name = values["data"]
    if name not in RECIPES:
        raise InputError(f"data must be one of {', '.join(RECIPES)}, got {name}")
    for key in ("annotations", "images"):
        if key not in values or not Path(values[key]).exists():
            raise InputError(
                f"{key} must be {'the COCO file' if key == 'annotations' else 'the folder'} of the "
                f"data set {name}, got {values.get(key, 'nothing')} (docs/photographs.md)"
            )
    known = ("ladder", "backbone", "augmentation", "submission")
    tables = tuple(values.get("tables", "ladder,backbone,augmentation,submission").split(","))
    if unknown := [table for table in tables if table not in known]:
        raise InputError(f"tables must be of {', '.join(known)}, got {unknown[0]}")
    if "submission" in tables and "test_images" not in values:
        raise InputError("test_images must be the folder of the test images, got nothing")
    for key in ("steps", "augmentation_steps"):
        if key in values and not values[key].isdecimal():
            raise InputError(f"{key} must be a whole number, got {values[key]}")
    test_images = values.get("test_images")
    return DataSet(
        recipe=RECIPES[name],
        annotations=Path(values["annotations"]).resolve(),
        images=Path(values["images"]).resolve(),
        test_images=None if test_images is None else Path(test_images).resolve(),
        steps=int(values["steps"]) if "steps" in values else None,
        augmentation_steps=int(values.get("augmentation_steps", 600)),
        overrides=overrides,
    ), tables
