"""``python -m src.predict image=``: one image or a folder, with drawings beside the store."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from src.cli.drawn_images import write_drawings
from src.cli.entry_point import CONFIG_DIRECTORY, register_resolvers
from src.errors import InputError
from src.predict import predict
from src.predictions.store import PredictionStore
from tests.helpers.predictions import SIZES_HW, checkpoint, overrides, write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("predict"))


def compose_for(folder: Path, output: Path, *more: str):
    register_resolvers()
    given = (f"paths.output_dir={output}", f"checkpoint={checkpoint(folder, 0)}", *more)
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        return compose("predict", overrides(folder, *given))


def test_an_image_is_predicted_alone_and_drawn(folder, tmp_path):
    low = "postprocess.score_threshold=0.26"
    for name, threshold in (("a.jpg", low), ("b.jpg", "postprocess.score_threshold=1")):
        config = compose_for(folder, tmp_path, f"image={folder}/test/{name}", threshold)
        store = PredictionStore(predict(config))
        assert store.image_ids == (name,)
        assert store.directory.name.startswith(f"predictions_{name}-"), "each image has its own"
        drawings = write_drawings(config, store)
        assert drawings == store.directory.with_name(f"{store.directory.name}_drawings")
        (path,) = drawings.iterdir()
        assert path.name == f"{name[0]}.jpg"
        height, width = SIZES_HW[name]
        drawn = np.asarray(Image.open(path)).astype(int)
        assert drawn.shape[:2] == (
            round(640 * height / max(height, width)),
            round(640 * width / max(height, width)),
        )


def test_a_folder_is_drawn_whole(folder, tmp_path):
    # the list of the competition's test images, which a folder of one's own has not
    no_list = f"datamodule.sample_submission={tmp_path}/sample_submission.csv"
    config = compose_for(folder, tmp_path, f"image={folder}/test", no_list)
    store = PredictionStore(predict(config))
    assert store.image_ids == tuple(SIZES_HW)
    names = sorted(path.name for path in write_drawings(config, store).iterdir())
    assert names == list(SIZES_HW)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["image=/no/a.jpg"], "image must be an image or a folder of images, got /no/a.jpg: no"),
        (["image={file}"], "image must be an image or a folder of images, got {file}"),
        (["image={image}", "images=/x"], "one of image and images must be given, got images=/x"),
        (
            ["image={image}", "predict_split=validation"],
            "one of image and predict_split must be given, got predict_split=validation",
        ),
    ],
)
def test_mistakes(folder, tmp_path, changes, message):
    file = tmp_path / "notes.txt"
    file.write_text("x")
    known = {"file": file, "image": folder / "test" / "a.jpg"}
    config = compose_for(folder, tmp_path / "out", *(one.format(**known) for one in changes))
    with pytest.raises(InputError, match=f"^{re.escape(message.format(**known))}"):
        predict(config)
