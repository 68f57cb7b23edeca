"""A prediction store that was not finished says so to every reader, and is refused."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.cli.postprocess import main as postprocess
from src.compare import main as compare
from src.errors import InputError
from src.export_coco import main as export_coco
from src.fuse import main as fuse
from src.predictions.files import write_expected
from src.predictions.store import PredictionStore
from src.report import main as report
from src.search import main as search
from tests.helpers.candidates import make_candidates
from tests.helpers.stores import make_images, make_writer, write_store

IMAGES, PER_SHARD, WRITTEN = 40, 5, 15
IDS = [f"{number:03d}.jpg" for number in range(IMAGES)]
PROGRAM = f"""
import sys, time
from src.predictions.store import PredictionStoreWriter
from tests.helpers.candidates import make_candidates

ids = [f"{{number:03d}}.jpg" for number in range({IMAGES})]
with PredictionStoreWriter(
    sys.argv[1], category_ids=range(46), settings={{}}, images_per_shard={PER_SHARD},
    expected_image_ids=ids,
) as writer:
    for number in range({WRITTEN + 2}):
        writer.add(make_candidates(number, image_id=ids[number], count=4))
    print("written", flush=True)
    time.sleep(60)
"""
REMEDY = (
    "run the same predict command again, it predicts what is missing, or give partial=true to use "
    "the images that are there"
)
MISSING = f"25 of its 40 images are missing, the first is '015.jpg'; {REMEDY}"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose writer was killed at 17 of 40 images: 15 are in whole shards."""
    directory = tmp_path_factory.mktemp("killed") / "store"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        os.kill(process.pid, signal.SIGKILL)
    return directory


@pytest.fixture
def run(call_program: Any) -> Any:
    """Run a program in an empty folder with a ground truth.

    Gives its exit code, stdout and stderr.
    """
    with Path("truth.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "EncodedPixels", "Height", "Width", "ClassId"])
        rows.writerows([image_id, "1 5000", 480, 360, 3] for image_id in IDS)

    return call_program


TRUTH = ["annotations=truth.csv", "cache_dir=cache"]
READERS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "postprocess": (postprocess, ["predictions={0}"]),
    "postprocess with a sample": (postprocess, ["predictions={0}", "sample_submission=truth.csv"]),
    "search": (
        search,
        [
            "predictions={0}",
            *TRUTH,
            "num_trials=2",
            "num_random_trials=1",
            "num_folds=2",
            "config_dir=found",
        ],
    ),
    "export_coco": (export_coco, ["predictions={0}", "output=results.json"]),
    "fuse": (fuse, ["predictions=[{1},{0}]", "output=fused"]),
    "report": (report, ["predictions={0}", *TRUTH]),
    "compare": (compare, ["a={0}", "b={1}", *TRUTH]),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_it(run: Any, killed: Path, tmp_path: Path, name: str) -> None:
    program, arguments = READERS[name]
    whole = tmp_path / "whole"
    if name in ("fuse", "compare"):
        write_store(whole, make_images(0, IMAGES, count=2))
    code, out, err = run(program, *(text.format(killed, whole) for text in arguments))
    assert (code, out, err.strip()) == (2, "", f"error: {killed}: {MISSING}")
    left = {"truth.csv", "whole", "cache"}
    assert {path.name for path in tmp_path.iterdir()} <= left


def test_partial_uses_what_is_there_and_says_so(run: Any, killed: Path, tmp_path: Path) -> None:
    said = f"{killed}: 25 of its 40 images are missing, the first is '015.jpg' (partial=true)\n"
    given = (f"predictions={killed}", "partial=true")
    code, out, err = run(postprocess, *given)
    assert code is None
    assert "of 15 images" in out
    assert f"note: {said}" in out
    code, out, err = run(export_coco, *given, "output=results.json")
    assert (code, err.lstrip()) == (None, f"note: {said}")
    code, out, err = run(report, *given, *TRUTH, "num_worst=1", "num_best=0")
    assert code is None
    assert f"note: {said}" in err
    code, out, err = run(compare, f"a={killed}", f"b={killed}", "partial=true", *TRUTH)
    assert code is None
    assert err.count(said) == 2
    assert json.loads(out.splitlines()[-1])["images"] == 15


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("given", ["partial=false", "partial=true"])
def test_a_store_without_a_whole_shard_is_refused(
    run: Any, tmp_path: Path, name: str, given: str
) -> None:
    """Its only shard was being written when the process was killed."""
    program, arguments = READERS[name]
    store, whole = tmp_path / "store", tmp_path / "whole"
    write_store(whole, make_images(0, IMAGES, count=2))
    writer = make_writer(store, expected_image_ids=IDS)
    writer.add(make_candidates(0, image_id=IDS[0], count=1))
    code, out, err = run(program, *(text.format(store, whole) for text in arguments), given)
    assert (code, out) == (2, "")
    assert re.fullmatch(
        rf"error: {store}: holds no predictions yet, only the unfinished shard "
        r"\.rank00000_shard00000\.arrow\.\S+\.part; run the same predict command again, it "
        r"predicts what is missing",
        err.strip(),
    )


def test_a_sweep_says_it_once(run: Any, killed: Path) -> None:
    given = ("-m", f"predictions={killed}", "postprocess.score_threshold=0.1,0.2")
    code, out, err = run(postprocess, *given)
    assert code == 2
    assert f"error: {killed}: {MISSING}\n" in err
    code, out, err = run(postprocess, *given, "partial=true")
    assert code is None
    assert "job 2 of 2" in out
    assert err.count("25 of its 40 images are missing") == 1


def test_a_fused_store_lacks_what_its_parts_lack(run: Any, killed: Path, tmp_path: Path) -> None:
    with make_writer(tmp_path / "other", expected_image_ids=IDS) as writer:
        for image in make_images(5, IMAGES, count=2):
            writer.add(image)
        for image_id in IDS[:5]:
            writer.add_failed(image_id, "truncated")
    stores = f"predictions=[{killed},{tmp_path}/other]"
    code, out, err = run(fuse, stores, "output=fused", "partial=true")
    assert code is None
    assert out.endswith(" in 10 images, of 2 stores\n")
    assert "other: 5 of its 40 images could not be predicted, the first is '000.jpg' (trunc" in err
    fused = PredictionStore("fused")
    assert fused.image_ids == tuple(IDS[5:15])
    assert fused.missing == tuple(IDS[15:])
    assert list(fused.failed) == IDS[:5]


def test_a_sample_is_written_whole_with_partial(run: Any, killed: Path, tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_text("ImageId\n039.jpg\n003.jpg\n")
    given = (f"predictions={killed}", "sample_submission=sample.csv", "partial=true")
    code, out, _ = run(postprocess, *given)
    assert code is None
    assert "note: 1 of the 2 images of sample.csv have no predictions: written as images" in out
    assert ", a valid submission" in out
    with Path("submission.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["ImageId"] == "039.jpg"]
    assert rows == [{"ImageId": "039.jpg", "EncodedPixels": "1 1", "ClassId": "23"}]


def test_images_that_failed_are_not_missing(tmp_path: Path) -> None:
    with make_writer(tmp_path / "a", expected_image_ids=IDS) as writer:
        for number in range(20):
            writer.add(make_candidates(number, image_id=IDS[number], count=1))
    with make_writer(tmp_path / "a", rank=1, expected_image_ids=IDS) as writer:
        for number in range(20, 39):
            writer.add(make_candidates(number, image_id=IDS[number], count=1))
    assert PredictionStore(tmp_path / "a").missing == ("039.jpg",)
    with make_writer(tmp_path / "a", expected_image_ids=IDS) as writer:
        writer.add_failed("039.jpg", "gone\n\x1b[2J")
    found = PredictionStore(tmp_path / "a")
    assert found.missing == ()
    assert found.check_whole(partial=False) == [
        f"{tmp_path}/a: 1 of its 40 images could not be predicted, the first is '039.jpg' "
        r"(gone\n\x1b[2J)"
    ]
    with pytest.raises(InputError, match=r"1 of the 40 images of its split .* or give partial=tr"):
        found.check_none_failed()


def test_a_store_of_an_earlier_version(tmp_path: Path) -> None:
    """Without a list of its images it is whole where every process that wrote has finished."""
    write_store(tmp_path, make_images(0, 8))
    write_store(tmp_path, make_images(8, 12), rank=1)
    for path in tmp_path.glob("*.json"):  # as version 1 wrote them
        content = {k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}
        if path.name == "meta.json":
            content["format_version"] = 1
        path.write_text(json.dumps(content))
    store = PredictionStore(tmp_path)
    assert store.missing == ()
    assert store.check_whole(partial=False) == []
    (tmp_path / "rank00001_done.json").unlink()
    with pytest.raises(InputError, match=r"not finished, .* which images it lacks; it has 12; run"):
        PredictionStore(tmp_path).check_whole(partial=False)
    assert "it has 12 (partial=true)" in PredictionStore(tmp_path).check_whole(partial=True)[0]
    # the same run may resume in it, and then it says
    with make_writer(tmp_path, rank=1, expected_image_ids=[f"{n:03d}.jpg" for n in range(13)]):
        pass
    assert PredictionStore(tmp_path).missing == ("012.jpg",)
    assert "sha256" in json.loads((tmp_path / "meta.json").read_text())


def test_every_flipped_bit_of_a_small_file_is_noticed_or_harmless(tmp_path: Path) -> None:
    with make_writer(tmp_path, expected_image_ids=IDS[:6]) as writer:
        for image in make_images(0, 5, count=0):
            writer.add(image)
        writer.add_failed(IDS[5], "truncated")
    names = ("meta.json", "expected_images.json", "rank00000_failed.json", "rank00000_done.json")
    before = read_everything(tmp_path)
    for name in names:
        path = tmp_path / name
        whole, unnoticed = path.read_bytes(), 0
        for place in range(0, len(whole), 5):
            for bit in (0, 3, 6):
                damaged = bytearray(whole)
                damaged[place] ^= 1 << bit
                path.write_bytes(damaged)
                try:
                    found = read_everything(tmp_path)
                except InputError as error:
                    assert name in str(error)  # noqa: PT017
                    continue
                unnoticed += 1
                assert found == before, (name, place, bit)
        assert unnoticed < len(whole) / 5  # of white space between values
        path.write_bytes(whole)


def read_everything(directory: Path) -> tuple[Any, ...]:
    store = PredictionStore(directory)
    return store.meta, store.missing, dict(store.failed), store.image_ids


def test_a_writer_of_another_list_of_images_replaces_it(tmp_path: Path) -> None:
    write_store(tmp_path, make_images(0, 2), expected_image_ids=IDS[:2])
    write_expected(tmp_path, IDS[:3])  # an image was added to the folder
    assert PredictionStore(tmp_path).missing == ("002.jpg",)
