"""Average the weights of checkpoints: ``python -m src.average checkpoint=[a.ckpt,b.ckpt]``."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from src.cli.entry_point import entry_point, to_plain
from src.io import check_writable, file_sha256
from src.mmdet_bridge.checkpoints.files import (
    SAME_WEIGHTS_CURE,
    check_checkpoint_file,
    check_shares,
    check_weights_path,
    find_checkpoint,
)


def average(config: DictConfig) -> None:
    """Write the mean of some checkpoints, with its sources in the file's header."""
    keys = to_plain(config)
    paths = keys["checkpoint"] if isinstance(keys["checkpoint"], list) else [keys["checkpoint"]]
    paths = [find_checkpoint(path) for path in paths]
    output = check_weights_path(keys["output"])
    check_writable(output)
    for path in paths:
        check_checkpoint_file(path)
    check_shares(paths, keys["weights"])
    # Imported where it is needed: torch takes 2 s, which --help and mistakes do without.
    from src.mmdet_bridge.checkpoints.averaging import average_weights
    from src.mmdet_bridge.checkpoints.reading import (
        carried_notes,
        check_given_once,
        load_checkpoint,
        save_weights,
    )
    from src.mmdet_bridge.checkpoints.weight_files import detector_names

    known: dict[str, Path] = {}
    for path in paths:
        weights = detector_names(load_checkpoint(path, only_notes=True).weights)
        check_given_once(known, path, weights, cure=SAME_WEIGHTS_CURE)
    mean = average_weights(paths, weights=keys["weights"])
    shares = keys["weights"] or [1] * len(paths)
    notes = {
        f"source_{number}": f"{path} sha256 {file_sha256(path)} weight {share}"
        for number, (path, share) in enumerate(zip(paths, shares, strict=True))
    }
    carried = carried_notes(load_checkpoint(paths[0], only_notes=True))
    save_weights(mean, output, notes=notes | carried)
    print(f"mean of {len(paths)} checkpoints, {len(mean)} tensors\nwrote {output}")


main = entry_point("average")(average)

if __name__ == "__main__":
    main()
