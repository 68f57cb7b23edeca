"""What is added to a page's command so that it takes seconds on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

from tests.helpers.sizes import SMALL

SIZES = tuple(word for word in SMALL if word.startswith("module.detector.sizes."))
TINY = ("module=htc_tiny", *(word for word in SMALL if not word.startswith("module.num_classes")))
ON_THIS_CPU = (
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "datamodule.num_workers=0",
    "callbacks.progress=null",
    "num_torch_threads=1",
)
SHORT = (
    *ON_THIS_CPU,
    "trainer.max_epochs=1",
    "trainer.max_steps=-1",
    "trainer.check_val_every_n_epoch=1",
    "trainer.limit_train_batches=2",
    "datamodule.batch_size=2",
    "datamodule.train_short_edge_px=[48,64]",
    "datamodule.train_long_edge_px=96",
    "datamodule.predict_short_edge_px=48",
    "datamodule.predict_long_edge_px=96",
)
# Words of a command (all of them must be there) and what is added to it, in place of the same keys.
ADDED: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("src.train",), (*SIZES, *SHORT)),
    (("src.train", "+experiment=own"), (*TINY, "datamodule.num_validation_images=0.2")),
    (
        ("src.train", "+experiment=htc_x101"),  # three epochs, for the three best checkpoints
        (*TINY, "datamodule.num_validation_images=6", "trainer.max_epochs=3"),
    ),
    (("src.predict",), ON_THIS_CPU),
    (("src.bundle",), ON_THIS_CPU),
    (("src.predict", "fusion=late"), ("fusion.score_threshold=0.001",)),  # of untrained models
    (("src.predict", "+experiment=htc_x101"), ("datamodule.num_validation_images=null",)),
    (("src.predict", "+experiment=demo"), ("datamodule.num_validation_images=null",)),
    (("src.predict", "tta=three_scales"), ("tta.scales=[[32,64],[48,96],[64,128]]",)),
    (("src.predict", "tta=three_scales_flip"), ("tta.scales=[[32,64],[48,96],[64,128]]",)),
    (("src.import_weights", "module=htc_x101_dcn"), TINY),
    (("src.import_weights", "trusted=true"), TINY),
    (("src.split",), ("num_validation_images=6",)),
    (("src.search",), ("num_trials=8", "num_random_trials=5", "num_folds=2")),
    (
        ("src.synthesize",),
        ("num_train_images=3", "num_test_images=1", "image_size=64", "num_workers=1"),
    ),
    (
        ("src.postprocess", "+sweep=thresholds"),  # four of its hundred jobs
        (
            "postprocess.score_threshold=0.3,0.5",
            "postprocess.nms_iou_threshold=0.3,0.5",
            "postprocess.mask_threshold=0.45",
        ),
    ),
    (("src.lab",), ("open_browser=false",)),
    (("src.doctor",), ("imports=false",)),
)
SWEEP_VALUES = 2  # of each list of a multirun


def key_of(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def small(words: Sequence[str]) -> list[str]:
    """Return a command on fewer images, steps, trials and jobs."""
    added: dict[str, str] = {}
    for asked, overrides in ADDED:
        if set(asked) <= set(words):
            own_module = "src.train" in words and any(word.startswith("module=") for word in words)
            added |= {
                key_of(word): word
                for word in overrides
                if not (own_module and word.startswith(("module=", "module.detector.", "+module")))
                or word in SIZES
            }
    kept = [word for word in words if key_of(word) not in added or "=" not in word]
    if "-m" in words[3:]:
        kept = [_fewer_values(word) for word in kept]
    if words[2:3] == ["pytest"] and not any(word.endswith(".py") for word in words):
        kept.append("--collect-only")
    return [*kept, *added.values()]


def _fewer_values(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals or value.startswith(("[", "{")):
        return word
    return f"{key}={','.join(value.split(',')[:SWEEP_VALUES])}"


def outputs_of(words: Sequence[str]) -> list[str]:
    """Return the words that name what a command writes."""
    keys = {"output", "output_dir", "name", "hydra.sweep.dir"}
    if "src.predict" in words:
        keys.add("predictions")
    return [word for word in words if key_of(word) in keys]
