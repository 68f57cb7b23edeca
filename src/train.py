"""Train a cascade: ``python -m src.train +experiment=htc_x101 trainer.devices=8``.

Torch takes 2 s to import, Lightning and mmdet another 6, so they are imported in the functions that
need them: ``--help`` and mistakes in values and files do without the first, a run that is finished
already without the others.
"""

from __future__ import annotations

import gc
import logging
from pathlib import Path

from omegaconf import DictConfig

from src.annotations.competition import Competition
from src.cli.derived_config import open_data, take_classes, use_own_data
from src.cli.entry_point import entry_point, to_plain
from src.cli.locks import working_in
from src.cli.run_checks import (
    check_devices,
    check_monitors,
    check_multirun,
    check_precision,
    check_resume,
    find_initial_weights,
)
from src.io import check_writable
from src.mmdet_bridge.checkpoints.files import files_of_run
from src.processes import is_first_process
from src.tuning.sweeps import finish_job, is_sweep

log = logging.getLogger(__name__)


def train(config: DictConfig) -> float | None:
    """Run the composed training.

    Returns:
        The best competition score on the validation images, in [0, 1]; None without any.
    """
    check_precision(config.trainer)
    check_devices(config.trainer)
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
    Competition.from_config(plain_config["competition"]).check_columns(classes.category_ids)
    gc.disable()  # torch's modules and checkpoints are a million objects, and no garbage
    try:
        from src.cli.resume import check_same_run, choose_checkpoint

        found = choose_checkpoint(
            resume=resume, directory=checkpoints, trainer=plain_config["trainer"]
        )
    finally:
        gc.enable()
    if found is not None:
        check_same_run(found, plain_config)
        if (end := found.describe_end(plain_config)) is not None:
            log.info("finished already: %s", end)
            return found.best_score()
        # The weights that the run began with stay on record.
        plain_config["initial_weights"] = found.initial_weights
        log.info("resuming from %s, step %d", found.path, found.step)
    from src.cli.training import fit

    return fit(config, plain_config=plain_config, classes=classes, found=found)


@entry_point("train", lock=lambda config: working_in(config.paths.output_dir, key="hydra.run.dir"))
def main(config: DictConfig) -> float | None:
    """Train; the value returned is the score of a sweep's job."""
    check_multirun(config.trainer)
    score = train(config)
    if is_sweep() and is_first_process():
        folder = Path(config.paths.output_dir)
        finish_job(folder, identity=to_plain(config), result={"competition_map": score})
    return score


if __name__ == "__main__":
    main()
