"""The command ``python -m src.lab``, from its arguments to Ctrl-C."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from src.cli.entry_point import CONFIG_DIRECTORY, to_plain
from src.cli.lab import main, post_processing_command, session_file
from src.lab.controls import describe_controls
from src.postprocess.settings import PostprocessSettings
from tests.helpers.configs import compose_config
from tests.helpers.lab_data import write_lab_data
from tests.helpers.lab_server import Page, make_inputs, open_page

ROOT = CONFIG_DIRECTORY.parent


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "src.lab", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        # A shell ignores SIGINT for what it starts in the background, these tests as well.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_it_prints_the_address_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    store, truth = write_lab_data(tmp_path / "data", 2)
    lab = start(
        f"predictions={store}",
        f"ground_truth={truth}",
        f"cache_dir={tmp_path / 'cache'}",
        f"session_dir={tmp_path / 'session'}",
        "open_browser=false",
    )
    try:
        assert lab.stdout is not None
        line = lab.stdout.readline()
        address = re.match(r"http://127\.0\.0\.1:\d+/", line)
        assert address, line
        with urllib.request.urlopen(address[0], timeout=30) as answer:
            assert answer.status == 200
        begin = time.perf_counter()
        lab.send_signal(signal.SIGINT)
        lab.wait(timeout=10)
        seconds = time.perf_counter() - begin
        assert lab.returncode == 130
        assert lab.stderr is not None
        errors = lab.stderr.read()
        assert "Traceback" not in errors
        assert errors.count("interrupted: ") == 1
        assert seconds < 2  # a second on a machine with nothing else to do
    finally:
        lab.kill()
        lab.wait()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["port=70000"], "port must be a whole number from 0 to 65535, got 70000"),
        (["port=x"], "port must be a whole number"),
        (["host=no.such.host.invalid"], "host and port must be an address to listen on"),
        (["open_browser=7"], "open_browser must be"),
        (["images=nowhere"], "images must be a folder, got nowhere"),
        (["postprocess.score_threshold=2"], "postprocess.score_threshold must be a number"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, _ = write_lab_data(tmp_path / "data", 1)
    given = ["lab", f"predictions={store}", f"session_dir={tmp_path}", *arguments]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert len(errors.strip().splitlines()) == 1
    assert message in errors


def test_the_command_of_settings_gives_them(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "score_threshold": 0.4,
        "score_threshold_per_class": {23: 0.25, 3: 0.5},
        "remove_categories": [1, "attribute_classes"],
        "max_per_image": None,
        "suppress_overlaps": "all",
        "nms_kind": "soft_linear",
        "steps": ["score", "nms", "masks", "suppress_overlaps", "remove"],
        "min_area_px": 0,
    }
    folder = f"my 'data' ({tmp_path.name})"
    config = compose_config("lab", ["predictions=x", f'annotations="{tmp_path}/t r.csv"'])
    config.predictions = folder
    given = ["annotations=x", "competition=imaterialist_2020", "averaging=pooled", "port=80"]
    text = post_processing_command(config, given, "winner", changes)
    words = shlex.split(text)
    assert words[:3] == ["python", "-m", "src.postprocess"]
    assert "competition=imaterialist_2020" in words
    assert not [word for word in words if word.startswith("port")]
    composed = compose_config("postprocess", [*words[3:], "output_dir=."])
    assert composed.predictions == folder
    assert composed.annotations == f"{tmp_path}/t r.csv"
    found = PostprocessSettings.from_config(to_plain(composed.postprocess))
    assert found == PostprocessSettings.preset("winner").replace(**changes)


def test_the_command_has_no_quotes_where_it_needs_none() -> None:
    config = compose_config("lab", ["predictions=/tmp/x-1/store", "annotations=data/train.csv"])
    given = ["predictions=/tmp/x-1/store", "images='my data'", "metric=coco"]
    text = post_processing_command(config, given, "winner", {"score_threshold": 0.4})
    assert text == (
        "python -m src.postprocess predictions=/tmp/x-1/store annotations=data/train.csv "
        "\"images='my data'\" metric=coco postprocess=winner postprocess.score_threshold=0.4"
    )


def test_each_setting_has_a_control_with_its_explanation() -> None:
    controls = {one["key"]: one for one in describe_controls()}
    assert list(controls) == list(PostprocessSettings().to_dict())
    for one in controls.values():
        assert one["help"], one["key"]
        assert not one["help"].startswith(f"{one['step']}. ")
        if one["kind"] in ("number", "integer"):
            assert one["minimum"] < one["maximum"]
    assert controls["mask_threshold"]["refused"] is None
    fixed = {one["key"]: one for one in describe_controls("its masks are fixed")}
    refused = [key for key, one in fixed.items() if one["refused"]]
    assert refused == ["mask_threshold", "mask_threshold_per_class"]


def test_stores_have_session_files_of_their_own(tmp_path: Path) -> None:
    first, other = (session_file(str(tmp_path), str(tmp_path / name)) for name in ("a/s", "b/s"))
    assert first != other
    assert first.parent == tmp_path


@pytest.fixture
def page(tmp_path: Path) -> Any:
    with open_page(make_inputs(*write_lab_data(tmp_path, 4)), tmp_path) as page:
        yield page


def test_what_leaves_the_page(page: Page, tmp_path: Path) -> None:
    settings = page.workspace.start.replace(score_threshold=0.37).to_dict()
    assert page.post("/api/score", settings=settings)[0] == 200
    status, answer = page.post("/api/write_settings", name="mine", settings=settings)
    assert status == 200
    path = tmp_path / "conf" / "postprocess" / "mine.yaml"
    assert answer == {"path": str(path), "command": "postprocess=mine []"}
    text = path.read_text()
    assert "In-sample: chosen by hand on the images that give the score 0." in text
    assert "score_threshold: 0.37" in text
    status, answer = page.post("/api/command", settings=settings)
    assert answer == {"command": "postprocess=winner_all_classes ['score_threshold']"}
    status, headers, content = page.request("POST", "/api/submission", {"settings": settings})
    assert status == 200
    assert headers["X-Lab-Validation"] == "ok"
    assert headers["Content-Disposition"] == 'attachment; filename="submission.csv"'
    assert content.startswith(b"ImageId,EncodedPixels,ClassId\n")
    overlapping = {**settings, "suppress_overlaps": False, "nms_iou_threshold": 1.0}
    status, _, content = page.request("POST", "/api/submission", {"settings": overlapping})
    assert status == 400
    assert b"breaks a rule of the competition" in content


def test_the_settings_at_the_start_are_scored_before_the_page_asks(page: Page) -> None:
    end = time.monotonic() + 60
    while page.app.evaluation.known_score(page.workspace.start) is None:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_old_request_is_dropped(page: Page) -> None:
    assert page.post("/api/score", sequence=10)[0] == 200
    assert page.post("/api/score", sequence=9) == (
        409,
        {"dropped": True, "error": "a newer request has arrived"},
    )
    assert page.post("/api/score", sequence=9, client="b2")[0] == 200  # another tab
    assert page.post("/api/image", sequence=9, index=0)[0] == 200  # another channel


def test_without_ground_truth_all_but_scores_works(tmp_path: Path) -> None:
    store, _ = write_lab_data(tmp_path, 3)
    with open_page(make_inputs(store, None), tmp_path) as page:
        lab = page.get("/api/lab")
        assert not lab["has_scores"]
        assert lab["ground_truth"] is None
        assert lab["in_sample_note"] is None
        status, answer = page.post("/api/score")
        assert status == 200
        assert answer["competition_map"] is None
        assert answer["per_image"] == [None] * 3
        assert answer["num_candidates"] == 36
        assert answer["num_detections"] > 0
        status, answer = page.post("/api/image", index=0, ghosts=True)
        assert status == 200
        assert answer["score"] is None
        assert answer["ground_truth"] == []
        for path in ("interval", "errors", "coco"):
            status, answer = page.post(f"/api/{path}")
            assert status == 400
            assert "ground_truth must be given" in answer["error"]
        request = {"settings": page.workspace.start.to_dict()}
        assert page.request("POST", "/api/submission", request)[0] == 200


def test_coco_and_interval_answer(page: Page) -> None:
    status, answer = page.post("/api/coco")
    assert status == 200
    assert 0 <= answer["map"] <= answer["map_50"] <= 1
    assert answer["by_category"]
    status, answer = page.post("/api/interval")
    assert status == 200
    assert answer["verdict"] == "within noise"
    assert answer["difference"]["estimate"] == 0
