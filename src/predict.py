"""Write the prediction store of a split: ``python -m src.predict checkpoint=best.ckpt``."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from src.cli.entry_point import entry_point, to_plain
from src.cli.locks import working_in
from src.processes import is_first_process


@entry_point("predict", lock=lambda config: working_in(config.predictions, key="predictions"))
def main(config: DictConfig) -> None:
    """Predict; the exit code is 1 if images failed."""
    # Imported here, for --help and typos need none of it.
    from src.cli.prediction import predict
    from src.cli.run_checks import check_multirun
    from src.predictions.store import PredictionStore
    from src.tuning.sweeps import finish_job, is_sweep

    check_multirun(config.trainer)
    directory = predict(config)
    # Lightning kills the first process when another ends with an error, so it alone reports one.
    if not is_first_process():
        return
    store = PredictionStore(directory)
    if is_sweep():
        finish_job(
            Path(config.paths.output_dir),
            identity=to_plain(config),
            result={
                "competition_map": None,
                "predictions": str(directory),
                "num_images": len(store),
                "num_candidates": sum(store.count(index) for index in range(len(store))),
                "num_failed": len(store.failed),
            },
        )
    if store.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
