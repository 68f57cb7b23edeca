"""The ladder: its commands and their settings, marks of what is done, scores, and a small climb."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments import ladder
from experiments.ladder import climb, main
from experiments.rungs import LADDER, TRUTH, Rung, Sizes, arguments, score_command, steps
from experiments.running import ROOT, CommandError, Done, run_steps
from src.cli.entry_point import to_plain
from src.metrics.intervals import paired_bootstrap_interval
from src.postprocess.settings import PostprocessSettings
from tests.helpers.configs import compose_config

RUNG = {rung.name: rung for rung in LADDER}
COMMANDS = sorted({c for rung in LADDER for c in (*steps(rung, Sizes()), score_command(rung))})


def compose_command(command: str):
    module, *overrides = arguments(command)[1:]
    tool = module.removeprefix("src.")
    if tool in ("train", "predict"):
        overrides.append("paths.output_dir=unused")
    if tool == "postprocess":
        overrides.append("output_dir=unused")
    return compose_config(tool, overrides)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_composes(command: str) -> None:
    assert command.startswith("python -m src.")
    compose_command(command)


def settings_of(rung: Rung) -> PostprocessSettings:
    config = compose_command(steps(rung, Sizes())[-1])
    return PostprocessSettings.from_config(to_plain(config.postprocess))


def test_settings_of_the_rungs_are_those_of_the_seed() -> None:
    found = {
        name: (
            *(s.score_threshold, s.nms_iou_threshold, s.max_per_image, s.mask_threshold),
            (tuple(s.remove_categories), s.suppress_overlaps, s.min_area_px),
        )
        for name, s in ((name, settings_of(rung)) for name, rung in RUNG.items())
    }
    tuned = (0.5, 0.3, 100, 0.45)
    nothing = ((), False, 0)
    assert found == {
        "S8": (0.001, 0.5, 100, 0.5, nothing),
        "S9": (*tuned, nothing),
        "S10": (*tuned, nothing),
        "S11": (*tuned, nothing),
        "S12": (*tuned, (("attribute_classes",), False, 0)),
        "S13": (*tuned, (("attribute_classes",), True, 0)),
        "S14": (*tuned, (("attribute_classes",), True, 20)),
    }


def test_views_and_models_of_the_rungs() -> None:
    found = {}
    for name, rung in RUNG.items():
        config = compose_command(steps(rung, Sizes())[-2])
        views = (1 if config.tta.scales is None else len(config.tta.scales)) * (1 + config.tta.flip)
        found[name] = (config.ensemble.num_best or 1, views)
    assert found == {
        "S8": (1, 1),
        "S9": (1, 1),
        "S10": (1, 6),
        **dict.fromkeys(("S11", "S12", "S13", "S14"), (3, 6)),
    }


@pytest.fixture
def noting(tmp_path: Path) -> Path:
    """A folder with a program that notes its words, and fails while a file ``wrong`` is there."""
    (tmp_path / "note.py").write_text(
        "import pathlib, sys\n"
        "with open('notes', 'a') as notes: print(*sys.argv[1:], file=notes)\n"
        "sys.exit(3 if pathlib.Path('wrong').exists() else 0)\n"
    )
    return tmp_path


def notes(folder: Path) -> list[str]:
    return (folder / "notes").read_text().split()


def test_what_is_done_is_passed_over(noting: Path) -> None:
    commands = ["python -m note a", "python -m note b"]
    first = run_steps(commands, noting)
    assert run_steps(commands, noting) == first
    assert [done.command for done in first] == commands
    assert all(re.fullmatch(r"[0-9a-f]{12}(-dirty)?|unknown", done.commit) for done in first)
    assert notes(noting) == ["a", "b"]
    run_steps([*commands, "python -m note c"], noting)
    assert notes(noting) == ["a", "b", "c"]


def test_what_builds_on_another_command_is_done_anew(noting: Path) -> None:
    run_steps(["python -m note a", "python -m note b"], noting)
    run_steps(["python -m note x", "python -m note b"], noting)
    assert notes(noting) == ["a", "b", "x", "b"]


def test_a_command_that_failed_is_run_again(noting: Path) -> None:
    commands = ["python -m note a", "python -m note b"]
    run_steps(commands[:1], noting)
    (noting / "wrong").touch()
    with pytest.raises(CommandError, match="exit code 3: python -m note b"):
        run_steps(commands, noting)
    (noting / "wrong").unlink()
    run_steps(commands, noting)
    assert notes(noting) == ["a", "b", "b"]


def test_an_unknown_rung_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["s9_threshold"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: rung must be one of s8_defaults, s9_thresholds, ")
    assert error.endswith(", got 's9_threshold'\n")


@pytest.fixture
def readmes(tmp_path: Path) -> Path:
    """The README files, without what was measured."""
    copies = tmp_path / "experiments"
    for path in (ROOT / "experiments").rglob("README.md"):
        copy = copies / path.relative_to(ROOT / "experiments")
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = re.sub(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", r"\1\3", path.read_text(), flags=re.S)
        copy.write_text(text)
    return copies


HEADER = "ImageId,EncodedPixels,Height,Width,ClassId\n"
TRUE_ROWS = [f"{name}.jpg,{row}" for name in "abcd" for row in ("1 32,8,8,23", "41 8,8,8,6_5_7")]


def submitted(rows: list[str]) -> str:
    return HEADER + "".join(f"{row}\n" for row in rows)


def test_scores_count_attributes_and_are_compared_image_by_image(
    tmp_path: Path, readmes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_done(commands, directory):
        return [Done(command, "abc", 60.0) for command in commands]

    monkeypatch.setattr(ladder, "run_steps", all_done)
    (tmp_path / TRUTH).parent.mkdir(parents=True)
    (tmp_path / TRUTH).write_text(submitted(TRUE_ROWS))
    plain = [row.replace("6_5_7", "6") for row in TRUE_ROWS]
    # The trousers lack their attributes: wrong, beside a true class that was missed. 1/3 each.
    rows = {"S9": plain, "S10": plain[:1] + plain[2:]}  # on one image nothing wrong is left: 1/2
    (tmp_path / RUNG["S9"].submission).parent.mkdir(parents=True)
    for name, submission in rows.items():
        (tmp_path / RUNG[name].submission).write_text(submitted(submission))
    measured = climb([RUNG["S10"]], sizes=Sizes(), directory=tmp_path, readmes=readmes)
    before, after = [1 / 3] * 4, [1 / 2, 1 / 3, 1 / 3, 1 / 3]
    expected = paired_bootstrap_interval(before, after)
    assert measured[0].gain.difference.low == pytest.approx(expected.difference.low, abs=1e-12)
    assert measured[0].gain.difference.estimate == pytest.approx(1 / 24, abs=1e-12)
    assert measured[0].gain.probability_better == expected.probability_better
    assert measured[0].score.estimate == pytest.approx(3 / 8, abs=1e-12)
    text = (readmes / "s10_tta" / "README.md").read_text()
    assert "| S10 test-time augmentation | 0.31074 | +0.01063 | 0.375 (" in text
    assert "+0.0417 (+0.0000 to +0.1250)" in text
    assert "no gain that 4 images can show" in text
    assert "Commit abc; 5 minutes" in text
    assert "| S10" not in (readmes / "README.md").read_text()  # that one is of the whole ladder


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_small_climb_from_images_to_tables(
    tmp_path: Path, readmes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    counts = {
        "num-train-images": 26,
        "num-validation-images": 6,
        "num-test-images": 6,
        "steps": 200,
    }
    sizes = [f"--{name}={count}" for name, count in counts.items()]
    words = [f"--directory={tmp_path / 'run'}", f"--readmes={readmes}", *sizes]
    assert main(words) == 0
    summary = capfd.readouterr().out.splitlines()[-len(LADDER) - 1 :]
    assert [line.split()[0] for line in summary[:-1]] == list(RUNG)
    written = {path: path.read_text() for path in readmes.rglob("README.md")}
    for rung in LADDER:
        for path in (readmes / "README.md", readmes / rung.folder / "README.md"):
            assert f"| {rung.name} {rung.what} | " in written[path]
        of_rung = written[readmes / rung.folder / "README.md"]
        assert all(f"    {command}\n" in of_rung for command in steps(rung, Sizes(26, 6, 6, 200)))
    assert "mean score of 6 generated test images" in written[readmes / "README.md"]
    assert main(words) == 0
    again = capfd.readouterr().out
    assert again.splitlines()[-len(LADDER) - 1 :] == summary
    assert "$ " not in again  # no command is run anew
    assert written == {path: path.read_text() for path in written}
