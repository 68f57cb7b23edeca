"""A training from its configuration: first what is cheap, then what has to be imported.

numpy and Arrow read the data in a second. Torch takes 2 s more, Lightning and mmdet another 6, so
they are imported where they are needed: mistakes in values and files do without the first, a run
that is finished already without the others.
"""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from src.callbacks.checkpoint_files import files_of_run
from src.cli.derived_config import open_data, take_classes, use_own_data
from src.cli.entry_point import to_plain
from src.cli.run_checks import (
    check_devices,
    check_monitors,
    check_precision,
    check_resume,
    find_initial_weights,
)
from src.io import check_writable

log = logging.getLogger(__name__)


def train(config: DictConfig) -> float | None:
    """Run the composed training.

    Returns:
        The best competition score on the validation images, in [0, 1]; None without any.
    """
    check_precision(config.trainer)
    check_monitors(config.callbacks, config.trainer)
    if config.trainer.get("fast_dev_run"):
        # A folder of its own, so that a real run takes nothing of it.
        config = config.copy()
        config.paths.output_dir = str(Path(config.paths.output_dir) / "fast_dev_run")
    resume = "never" if config.trainer.get("fast_dev_run") else config.resume
    checkpoints = Path(config.paths.output_dir) / "checkpoints"
    check_writable(checkpoints / "last.ckpt")
    check_resume(resume)
    starts_anew = resume == "never" or (resume == "auto" and not files_of_run(checkpoints))
    if starts_anew and config.initial_weights is not None:
        find_initial_weights(config.initial_weights)
    use_own_data(config, run_directory=Path(config.paths.output_dir))
    classes = take_classes(config, open_data(config))
    plain_config = to_plain(config)
    check_devices(config.trainer)
    from src.cli.resume import check_same_run, choose_checkpoint

    found = choose_checkpoint(resume=resume, directory=checkpoints, trainer=plain_config["trainer"])
    if found is not None:
        check_same_run(found, plain_config)
        if (end := found.describe_end(plain_config)) is not None:
            log.info("finished already: %s", end)
            return found.best_score()
        # The weights that the run began with stay on record.
        plain_config["initial_weights"] = found.initial_weights
        log.info("resuming from %s, step %d", found.path, found.step)
    from src.cli.training_run import fit

    return fit(config, plain_config=plain_config, classes=classes, found=found)
