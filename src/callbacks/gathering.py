"""What several devices found about their photos, brought together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch.distributed

Found = TypeVar("Found")


def merged_over_ranks(found: Mapping[str, Found]) -> dict[str, Found]:
    """What every rank found, by image id: a photo that a sampler repeats is there once.

    To be called on all ranks.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return dict(found)
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, dict(found))
    return {image_id: value for part in gathered for image_id, value in part.items()}
