"""Train a cascade: ``python -m src.train +experiment=htc_x101 trainer.devices=8``."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from src.cli.entry_point import entry_point, to_plain
from src.cli.locks import working_in
from src.processes import is_first_process


@entry_point("train", lock=lambda config: working_in(config.paths.output_dir, key="hydra.run.dir"))
def main(config: DictConfig) -> float | None:
    """Train; the value returned is the score of a sweep's job."""
    # Imported here, for --help and typos need none of it.
    from src.cli.run_checks import check_multirun
    from src.cli.training import train
    from src.tuning.sweeps import finish_job, is_sweep

    check_multirun(config.trainer)
    score = train(config)
    if is_sweep() and is_first_process():
        folder = Path(config.paths.output_dir)
        finish_job(folder, identity=to_plain(config), result={"competition_map": score})
    return score


if __name__ == "__main__":
    main()
