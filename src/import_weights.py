"""Import weights: ``python -m src.import_weights source=X.pth output=Y.safetensors``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.annotations.categories import IMATERIALIST_2019_LABELS, read_label_descriptions
from src.cli.entry_point import entry_point, overridden_keys, to_plain
from src.errors import InputError
from src.io import check_writable
from src.mmdet_bridge.checkpoints.category_map import read_entries
from src.mmdet_bridge.checkpoints.files import check_checkpoint_file, check_weights_path
from src.mmdet_bridge.checkpoints.sources import find_source
from src.mmdet_bridge.options import check_import_options

SCOPES = ("detector", "backbone")
# Keys of the configuration that are for whole detectors, with the value that says nothing.
DETECTOR_KEYS = {"layout": "auto", "class_layers": "reset", "category_map": None}


def import_checkpoint(config: DictConfig) -> None:
    """Import weights, write them, and show what became of each."""
    keys = _with_number_of_ids(config)
    _check_options(keys)
    output = check_weights_path(keys["output"])
    check_writable(output)
    labels = IMATERIALIST_2019_LABELS
    if keys["label_descriptions"] is not None:
        labels = read_label_descriptions(keys["label_descriptions"])
    source = find_source(str(keys["source"]), cache_dir=keys["cache_dir"])
    check_checkpoint_file(source)
    if keys["trusted"]:
        print(f"trusted=true: code in {source} may run", file=sys.stderr)
    # Imported where it is needed: torch and mmdet take 6 s, which --help and mistakes do without.
    from src.cli.weight_import import import_file

    import_file(keys, Path(source), output=output, labels=labels)


def _check_options(keys: dict[str, Any]) -> None:
    """Check the values before a file of weights is read."""
    scope, category_map = keys["scope"], keys["category_map"]
    if scope not in SCOPES:
        raise InputError(f"scope must be one of {', '.join(SCOPES)}, got {scope}")
    for key, legal in DETECTOR_KEYS.items() if scope == "backbone" else ():
        if keys[key] != legal:
            shown = "null" if legal is None else legal
            raise InputError(f"{key} must be {shown} with scope=backbone, got {keys[key]}")
    check_import_options(
        layout=keys["layout"],
        class_layers=keys["class_layers"],
        has_class_map=category_map is not None,
    )
    if category_map is not None:
        read_entries(Path(category_map))


def _with_number_of_ids(config: DictConfig) -> Any:
    """Return the configuration as plain values; category ids alone give the number of classes."""
    module = config.module
    if module.category_ids is not None and len(module.category_ids) != module.num_classes:
        if "module.num_classes" in overridden_keys():
            raise InputError(
                f"module.num_classes must be {len(module.category_ids)}, the number of "
                f"module.category_ids, got {module.num_classes}; leave it out"
            )
        module.num_classes = len(module.category_ids)
    return to_plain(config)


main = entry_point("import_weights")(import_checkpoint)

if __name__ == "__main__":
    main()
