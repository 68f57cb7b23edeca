from __future__ import annotations

from pathlib import Path

import pytest
import torch

from src.synthetic.dataset import synthesize
from tests.training.runs import run

MOMENTS = ("batch 1", "saving 4", "validation 0", "batch 6", "batch 9")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen generated images, three of which validate."""
    directory = tmp_path_factory.mktemp("images")
    synthesize(
        directory,
        num_train_images=16,
        num_test_images=1,
        seed=3,
        image_size=(96, 96),
        difficulty=0.0,
        clutter=0.0,
        attributes_share=0.0,
        grayscale_share=0.0,
        rotated_share=0.0,
        num_transposed_images=0,
        workers=1,
    )
    return directory


@pytest.fixture(scope="session")
def uninterrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody killed; ``../moments`` has its folder as it was at certain moments."""
    output = tmp_path_factory.mktemp("uninterrupted") / "run"
    threads = torch.get_num_threads()
    run(
        images,
        output,
        "+callbacks.snapshots._target_=tests.training.interruptions.Snapshots",
        f"+callbacks.snapshots.directory={output}",
        f"+callbacks.snapshots.output={output.parent / 'moments'}",
        f"+callbacks.snapshots.moments=[{','.join(MOMENTS)}]",
    )
    torch.set_num_threads(threads)
    return output
