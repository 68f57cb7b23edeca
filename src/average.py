"""Average the weights of checkpoints: ``python -m src.average checkpoint=[a.ckpt,b.ckpt]``."""

from __future__ import annotations

from omegaconf import DictConfig

from src.config import entry_point, to_plain
from src.mmdet_bridge.averaging import average_weights
from src.mmdet_bridge.checkpoints import check_weights_path, file_sha256, save_weights


def average(config: DictConfig) -> None:
    """Write the mean that the config describes, with its sources in the file's header."""
    keys = to_plain(config)
    paths = keys["checkpoint"] if isinstance(keys["checkpoint"], list) else [keys["checkpoint"]]
    output = check_weights_path(keys["output"])
    mean = average_weights(paths, weights=keys["weights"])
    shares = keys["weights"] or [1] * len(paths)
    notes = {
        f"source_{number}": f"{path} sha256 {file_sha256(path)} weight {share}"
        for number, (path, share) in enumerate(zip(paths, shares, strict=True))
    }
    save_weights(mean, output, notes=notes)
    print(f"mean of {len(paths)} checkpoints, {len(mean)} tensors")
    print(f"wrote {output}")


@entry_point("average")
def main(config: DictConfig) -> None:
    """Hydra's task: average."""
    average(config)


if __name__ == "__main__":
    main()
