"""The ladder on photographs: its commands compose, its tables and files are what was measured."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from experiments.ladder import main
from experiments.photograph_tables import anonymous, better_rung, measure, pack_submission
from experiments.photographs import (
    RECIPES,
    DataSet,
    Variant,
    augmentations,
    backbones,
    data_set,
    ladder,
    submission_commands,
)
from experiments.rungs import arguments
from src.cli.entry_point import to_plain
from src.errors import InputError
from src.postprocess.settings import PostprocessSettings
from tests.helpers.configs import compose_config


def a_set(name: str) -> DataSet:
    return DataSet(
        recipe=RECIPES[name],
        annotations=Path("/d/train.json"),
        images=Path("/d/train"),
        test_images=Path("/d/test"),
    )


def compose_command(command: str):
    module, *overrides = arguments(command)[1:]
    tool = module.removeprefix("src.")
    overrides = [word for word in overrides if not word.startswith("hydra.")]
    if tool in ("train", "predict"):
        overrides.append("paths.output_dir=unused")
    if tool == "postprocess":
        overrides.append("output_dir=unused")
    if "postprocess=s14" in overrides:  # which the search writes
        overrides.remove("postprocess=s14")
    return compose_config(tool, overrides)


def commands_of(data: DataSet) -> list[str]:
    variants = (*ladder(data), *backbones(data), *augmentations(data))
    made = [command for variant in variants for command in variant.commands]
    return list(dict.fromkeys((*made, *submission_commands(data))))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_each_command_composes(name: str) -> None:
    for command in commands_of(a_set(name)):
        config = compose_command(command)
        if not command.startswith("python -m src.predict") and "competition" in config:
            assert config.competition.name == RECIPES[name].competition


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_rungs(name: str) -> None:
    rungs = ladder(a_set(name))
    assert [rung.name for rung in rungs] == ["S8", "S9", "", "S10", "S11", "S13", "S14"]
    last = {rung.what: compose_command(rung.commands[-1]) for rung in rungs}
    found = {
        what: PostprocessSettings.from_config(to_plain(config.postprocess))
        for what, config in last.items()
    }
    assert found["default thresholds"].score_threshold == 0.001
    winner = found["winner's thresholds"]
    assert (winner.score_threshold, winner.suppress_overlaps, winner.min_area_px) == (0.5, False, 0)
    assert not found["three checkpoints"].suppress_overlaps
    assert found["overlaps suppressed"].suppress_overlaps
    spaces = {what: config.space for what, config in last.items() if "space" in config}
    assert spaces["overlaps suppressed"].min_area_px is None
    assert len(spaces["small detections deleted"].min_area_px) == 5
    views = compose_command(rungs[3].commands[-2])
    assert (views.tta.flip, len(views.tta.scales)) == (True, 3)
    assert compose_command(rungs[4].commands[-2]).ensemble.num_best == 3


def test_the_first_augmentation_moves_and_changes_nothing() -> None:
    for name in RECIPES:
        first, *others = augmentations(a_set(name))
        config = compose_command(first.commands[1])
        assert config.datamodule.pixel_augmentations is None
        geometry = dict(config.datamodule.geometric_augmentation)
        assert (geometry["vertical_flip_probability"], geometry["quarter_turn_probability"]) == (
            0,
            0,
        )
        for other in others:
            changed = compose_command(other.commands[1]).datamodule
            assert changed != config.datamodule, other.what


def write_scores(path: Path, per_image: dict[str, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mean = sum(per_image.values()) / len(per_image)
    path.write_text(
        json.dumps({"competition_map": mean, "averaging": "per_class", "per_image": per_image})
    )


def test_rows_are_compared_image_by_image(tmp_path: Path) -> None:
    write_scores(tmp_path / "a.json", {"1": 0.2, "2": 0.4})
    write_scores(tmp_path / "b.json", {"2": 0.5, "1": 0.3})
    write_scores(tmp_path / "c.json", {"1": 0.1, "2": 0.1})
    variants = [Variant(name, "x", (), f"{name}.json") for name in "abc"]
    rows = measure(variants, tmp_path, first=False)
    assert [round(row.score.estimate, 3) for row in rows] == [0.3, 0.4, 0.1]
    gains = [None if row.gain is None else row.gain.difference for row in rows]
    assert gains[0] is None
    assert gains[1] is not None
    assert gains[1].low == pytest.approx(0.1) == pytest.approx(gains[1].high)
    beside_first = measure(variants, tmp_path, first=True)[2].gain
    assert beside_first is not None
    assert beside_first.difference.estimate == pytest.approx(-0.2)


def test_commands_of_a_page_name_no_folder_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "street").mkdir()
    data = DataSet(
        recipe=RECIPES["street"],
        annotations=tmp_path / "street" / "train.json",
        images=tmp_path / "street" / "train",
        test_images=tmp_path / "street" / "test",
    )
    shown = anonymous("\n".join(commands_of(data)), data)
    assert "annotations=data/street/train.json images=data/street/train " in shown
    assert "images=data/street/test" in shown
    rest = re.sub(r"file://\S+", "", shown)
    assert str(tmp_path) not in rest


@pytest.mark.parametrize(
    ("s13", "wanted"), [(None, "s14"), (0.4, "s14"), (0.5, "s14"), (0.6, "s13")]
)
def test_the_submission_takes_the_better_of_the_rungs_without_overlaps(
    s13: float | None, wanted: str, tmp_path: Path
) -> None:
    data = a_set("street")
    scores = {rung.name: tmp_path / rung.scores for rung in ladder(data)}
    write_scores(scores["S14"], {"1": 0.4, "2": 0.6})
    if s13 is not None:
        write_scores(scores["S13"], {"1": s13, "2": s13})
    assert better_rung(data, tmp_path) == wanted
    assert f" postprocess={wanted} " in submission_commands(data, wanted)[1]


def test_a_submission_is_packed_to_the_same_bytes(tmp_path: Path) -> None:
    data = a_set("nuclei")
    folder = tmp_path / "outputs" / "nuclei"
    folder.mkdir(parents=True)
    content = b"ImageId,EncodedPixels\na,1 2\nb,\n"
    (folder / "submission.csv").write_bytes(content)
    first = pack_submission(data, tmp_path, tmp_path)
    packed = (tmp_path / "submission.csv.gz").read_bytes()
    assert pack_submission(data, tmp_path, tmp_path) == first
    assert (tmp_path / "submission.csv.gz").read_bytes() == packed
    assert gzip.decompress(packed) == content
    assert first == {
        "rows": 2,
        "sha256": hashlib.sha256(content).hexdigest(),
        "sha256_gzip": hashlib.sha256(packed).hexdigest(),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "cats"}, "data must be one of street, nuclei, got cats"),
        ({"annotations": "no.json"}, "annotations must be the COCO file of the data set street"),
        ({"images": "no"}, "images must be the folder of the data set street, got no"),
        (
            {"tables": "all"},
            "tables must be of ladder, backbone, augmentation, .*, got all",
        ),
        ({"steps": "-3"}, "steps must be a whole number, got -3"),
        ({"speed": "1"}, "key must be one of data, annotations, .*, got speed"),
        (
            {"tables": "submission"},
            "test_images must be the folder of the test images",
        ),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    (tmp_path / "a.json").touch()
    good = {"data": "street", "annotations": f"{tmp_path}/a.json", "images": str(tmp_path)}
    good["tables"] = "ladder"
    data, tables = data_set({**good, "trainer.max_steps": "5"})
    assert (data.overrides, tables) == (("trainer.max_steps=5",), ("ladder",))
    with pytest.raises(InputError, match=message):
        data_set(good | changes)


def test_a_mistake_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data=street", "annotations"]) == 2
    assert capsys.readouterr().err == "error: arguments must be key=value, got annotations\n"
