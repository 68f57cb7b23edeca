"""Names of weights: what wrappers put before mmdet's own names, and how messages list them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from src.io import printable

LIGHTNING_PREFIX = "detector."  # of a detector's weights in a Lightning checkpoint
AVERAGE_PREFIX = "ema_"
# Data parallel training, torch.compile, Lightning, modules that hold a detector as their model, and
# moving averages.
WRAPPERS = ("module.", "_orig_mod.", LIGHTNING_PREFIX, "model.", "ema_model.", AVERAGE_PREFIX)
AVERAGE_COUNTERS = ("n_averaged", "steps")  # of torch's and mmengine's averaged models
EXAMPLES = 3  # names of each kind in a message


@dataclass(frozen=True)
class Unwrapped:
    """Weights under mmdet's names.

    Attributes:
        plain: Name -> (name in the file, tensor), in the file's order.
        prefixes: Prefixes of all names that were removed, outermost first.
        second_set: Names in the file of the tensors that a moving average keeps beside the weights.
            mmcv's EMAHook exchanges the two before it writes, so that the plain names are the mean.
    """

    plain: dict[str, tuple[str, Tensor]]
    prefixes: tuple[str, ...]
    second_set: tuple[str, ...]

    def notice(self) -> str | None:
        """Describe in one line what was removed; None where names are as usual."""
        prefixes = "".join(prefix for prefix in self.prefixes if prefix != LIGHTNING_PREFIX)
        said = []
        if prefixes:
            said.append(f"its names start with {prefixes}, which is taken off")
        if self.second_set:
            said.append(
                f"{len(self.second_set)} tensors of a moving average are left out "
                f"({examples(self.second_set)})"
            )
        return "; ".join(said) or None


def unwrap(weights: Mapping[str, Tensor]) -> Unwrapped:
    """Remove the prefixes that wrappers give to all names."""
    second = [name for name in weights if name.startswith(AVERAGE_PREFIX)]
    if len(second) == len(weights):
        second = []
    left_out = {*second, *AVERAGE_COUNTERS}
    plain = {name: (name, value) for name, value in weights.items() if name not in left_out}
    prefixes = []
    while plain and (
        prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in plain)), None)
    ):
        prefixes.append(prefix)
        plain = {name.removeprefix(prefix): entry for name, entry in plain.items()}
    return Unwrapped(plain=plain, prefixes=tuple(prefixes), second_set=tuple(second))


def detector_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under mmdet's names, whichever program wrote the file."""
    return {name: value for name, (_, value) in unwrap(weights).plain.items()}


def examples(names: Sequence[str]) -> str:
    """Return the first few of many names, for a message."""
    shown = [printable(name) for name in names[:EXAMPLES]]
    return ", ".join(shown + ["..."] * (len(names) > EXAMPLES))


def misfits(kinds: Mapping[str, Sequence[str]]) -> str:
    """Return ``2 missing (a, b); 1 unknown (c)`` for the names of each kind; empty for none."""
    return "; ".join(
        f"{len(names)} {kind} ({examples(names)})" for kind, names in kinds.items() if names
    )
