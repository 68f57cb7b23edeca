"""Under Lightning a run that resumes sees what it would have seen, with workers too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DistributedSampler

from src.errors import InputError
from tests.helpers.images import Data
from tests.helpers.trainers import Recorder, make_trainer


class SaveAfter(Callback):
    """Writes a checkpoint after some batches of an epoch, and ends the run."""

    def __init__(self, path: Path, *, epoch: int, batches: int) -> None:
        self.path, self.when = path, (epoch, batches - 1)

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        if (trainer.current_epoch, args[-1]) == self.when:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


class GoOn(Callback):
    """Tells the data module where the checkpoint was written."""

    def __init__(self, **position: int) -> None:
        self.position = position

    def on_load_checkpoint(self, trainer: lightning.Trainer, *_: Any) -> None:
        trainer.datamodule.resume_at(**self.position)


class PlannedRecorder(Recorder):
    """Asks for the number of steps, as schedules do: Lightning makes the loader then."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


def trained(recorder: Recorder) -> list[tuple]:
    return [(e, s.img_id, s.img_shape, s.flip) for e, s in recorder.seen["fit"]]


def fit(data: Data, *callbacks: Callback, resume: Path | None = None, **changes) -> list[tuple]:
    recorder = PlannedRecorder()
    trainer = make_trainer(max_epochs=3, callbacks=[*callbacks], limit_val_batches=0)
    trainer.fit(recorder, datamodule=data.datamodule(**changes), ckpt_path=resume)
    return trained(recorder)


@pytest.mark.parametrize(
    ("epoch", "batches", "num_workers", "repeat_factor"),
    [(0, 2, 0, None), (1, 4, 1, 0.7), (1, 6, 1, None)],  # 6: after the last batch of the epoch
)
def test_resumed_run_sees_what_it_would_have_seen(
    data: Data, tmp_path, epoch, batches, num_workers, repeat_factor
):
    changes = {"num_workers": num_workers, "repeat_factor": repeat_factor}
    whole = fit(data, **changes)
    of_epoch = len(whole) // 3
    assert (of_epoch > 12) == (repeat_factor is not None)
    path = tmp_path / "cut.ckpt"
    seen = fit(data, SaveAfter(path, epoch=epoch, batches=batches), **changes)
    done = epoch * of_epoch + batches * 2
    assert seen == whole[:done]
    resume_at = GoOn(epoch=epoch, batches_done=batches)
    assert fit(data, resume_at, resume=path, **changes) == whole[done:]


def test_more_batches_than_an_epoch_has_are_refused(data: Data):
    datamodule = data.datamodule()
    datamodule.setup("fit")
    datamodule.resume_at(epoch=1, batches_done=7)
    with pytest.raises(InputError, match=r"trained on 7 batches of its epoch, but an epoch has 6"):
        datamodule.train_dataloader()
    datamodule.resume_at(epoch=1, batches_done=5)
    assert len(list(datamodule.train_dataloader())) == 1


def test_batches_are_grouped_and_lightning_leaves_the_sampler_alone(data: Data):
    for grouped in (True, False):
        datamodule = data.datamodule(batch_size=3, group_by_aspect_ratio=grouped)
        datamodule.setup("fit")
        loader = datamodule.train_dataloader()
        # Lightning puts a sampler of its own in the place of any but this type.
        assert isinstance(loader.sampler, DistributedSampler)
        mixed = 0
        for epoch in range(5):
            loader.sampler.set_epoch(epoch)
            for batch in loader:
                sizes = [sample.ori_shape for sample in batch["data_samples"]]
                mixed += len({width > height for height, width in sizes}) > 1
        assert mixed <= 5 if grouped else mixed > 5


def test_lightning_can_overfit_some_batches(data: Data):
    recorder = Recorder()
    trainer = make_trainer(max_epochs=2, overfit_batches=2, limit_val_batches=0)
    with pytest.warns(UserWarning, match="You requested to overfit"):
        trainer.fit(recorder, datamodule=data.datamodule())
    seen = trained(recorder)
    assert len(seen) == 8
    assert [sample[1:] for sample in seen[:4]] == [sample[1:] for sample in seen[4:]]
