"""The key ``exif`` of postprocess and search: how the ground truth beside the images is read."""

from __future__ import annotations

import pytest
from PIL import Image

from src.annotations.store import AnnotationStore
from src.annotations.store_builder import build_store
from src.errors import InputError
from src.tuning.session import Inputs, open_session
from tests.helpers.lab_data import write_lab_data


def test_the_truth_is_read_by_the_key(tmp_path):
    predictions, ground_truth = write_lab_data(tmp_path / "lab", images=2)
    build_store(ground_truth, tmp_path / "a.store")
    exif = Image.Exif()
    exif[0x0112] = 4
    for image in AnnotationStore(tmp_path / "a.store").images:
        Image.new("RGB", (512, 512)).save(tmp_path / image.file_name, exif=exif)
    options = {"annotations": str(ground_truth), "images": str(tmp_path), "cache_dir": None}

    def open_with(key):
        inputs = Inputs(str(predictions), sample_submission=None, exif=key, **options)
        return open_session(inputs)

    message = "exif must be as_displayed or as_stored, got auto"
    with pytest.raises(InputError, match=message), open_with("auto"):
        pass
    with open_with("as_displayed") as displayed, open_with("as_stored") as stored:
        first = displayed.comparison.image_ids[0]
        for one, other in ((displayed, stored), (stored, displayed)):
            masks = one.ground_truth[first].bitmasks
            assert masks != other.ground_truth[first].bitmasks
        note = "exif=as_stored: 2 images with an EXIF orientation"
        assert any(note in text for text in stored.comparison.notes)
