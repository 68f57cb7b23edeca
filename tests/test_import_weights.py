"""``python -m src.import_weights`` and ``src.average`` as a user types them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import torch
import torchvision
from torch import Tensor

from src.average import average
from src.errors import InputError
from src.import_weights import import_checkpoint
from src.io import file_sha256
from src.mmdet_bridge.cascade.detectors import build_detector
from src.mmdet_bridge.checkpoints.reading import load_state_dict
from src.modules.cascade import CascadeModule
from tests.helpers.cascades import detector_config
from tests.helpers.checkpoints import DEFORMABLE, REAL_NAMES, Malicious, notes_of, written_by
from tests.helpers.configs import compose_config

ROOT = Path(__file__).resolve().parents[1]
MODULE = ("module=htc_r50", *DEFORMABLE)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(build_detector(detector_config("htc_r50", *DEFORMABLE)).state_dict())


@pytest.fixture
def source(tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    path = tmp_path / "htc_coco.pth"
    torch.save({"meta": notes_of("v0.6"), "state_dict": written_by(weights, "v0.6")}, path)
    return path


def run_import(capsys: pytest.CaptureFixture[str], *overrides: str) -> list[str]:
    import_checkpoint(compose_config("import_weights", [*MODULE, *overrides]))
    return capsys.readouterr().out.splitlines()


def cells(lines: list[str]) -> list[tuple[str, ...]]:
    """The rows of the table."""
    return [
        tuple(cell.strip() for cell in line.strip("│").split("│"))
        for line in lines
        if line.startswith("│")
    ]


def test_import_says_what_became_of_every_weight(
    tmp_path: Path,
    source: Path,
    weights: dict[str, Tensor],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    output = tmp_path / "made" / "coco.safetensors"
    given = [f"source={source}", f"output={output}", "module.num_classes=46", "seed=1"]
    lines = run_import(capsys, *given)
    assert lines[0] == f"{source}: layout v0.6, written by mmdetection 0.6.0+unknown, 5 classes"
    rows = cells(lines)
    assert sum(int(row[1]) for row in rows) == len(weights) + 5
    offsets = ("backbone.layer*.*.conv2_offset.*", "backbone.layer*.*.conv2.conv_offset.*")
    assert ("renamed", "26", *offsets, "") in rows
    logits = ("bbox_head.*.fc_cls.*", "roi_head.bbox_head.*.fc_cls.*")
    assert ("reset", "6", *logits, "one row a class") in rows
    assert ("dropped", "2", "semantic_head.conv_logits.*", "", "semantic branch") in rows
    counters = ("", "backbone.layer*.*.bn1.*", "a counter that nothing reads, set to 0")
    assert ("missing", "16", *counters) in rows
    assert "5 dropped" in next(line for line in lines if re.match(r"\d+ loaded, ", line))
    assert "0 classes kept, 46 initialized" in lines
    settings = "module.detector.sizes.roi_half_pixel=false module.detector.sizes.roi_samples=2"
    assert f"  {settings}" in lines
    assert lines[-1] == f"wrote {output}"
    with safetensors.safe_open(output, framework="pt") as file:
        notes = dict(file.metadata())
    assert re.fullmatch(r"[0-9a-f]{64}", notes.pop("weights_sha256"))
    assert notes == {
        "format": "pt",
        "source": "htc_coco.pth",
        "source_sha256": file_sha256(source),
        "layout": "v0.6",
        "class_layers": "reset",
        "weights_checksum": "weights_sha256",
    }
    written = output.read_bytes()
    run_import(capsys, *given)
    assert output.read_bytes() == written


def test_a_category_map_by_names(
    tmp_path: Path, source: Path, weights: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "map.csv").write_text('category,source\ntie,tie\n"bag, wallet",handbag\n')
    lines = run_import(
        capsys,
        f"source={source}",
        f"output={tmp_path}/coco.safetensors",
        "module.num_classes=3",
        "module.category_ids=[24,7,16]",
        "class_layers=slice",
        f"category_map={tmp_path}/map.csv",
    )
    place = lines.index("2 classes kept, 1 initialized")
    assert lines[place + 1 : place + 3] == [
        "  24 bag, wallet: from 4 handbag",
        "  16 tie: from 3 tie",
    ]
    name = "roi_head.bbox_head.1.fc_cls.weight"
    got = load_state_dict(tmp_path / "coco.safetensors")[name]
    assert torch.equal(got[[0, 2, 3]], weights[name][[4, 3, 5]])


def test_names_of_other_data(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.json").write_text('{"categories": [{"id": 1, "name": "necktie"}]}')
    (tmp_path / "map.yaml").write_text("necktie: tie\n")
    lines = run_import(
        capsys,
        f"source={source}",
        f"output={tmp_path}/coco.safetensors",
        "module.num_classes=1",
        "module.category_ids=[1]",
        "class_layers=slice",
        f"category_map={tmp_path}/map.yaml",
        f"label_descriptions={tmp_path}/labels.json",
    )
    assert "  1 necktie: from 3 tie" in lines


def test_as_many_classes_are_initialized_unless_asked(
    tmp_path: Path, source: Path, weights: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    files = (f"source={source}", f"output={tmp_path}/coco.safetensors")
    assert any(
        line.startswith("the checkpoint has as many classes as the model, 5, yet their layers are")
        for line in run_import(capsys, *files)
    )
    assert "5 classes kept, 0 initialized" in run_import(capsys, *files, "class_layers=slice")
    got = load_state_dict(tmp_path / "coco.safetensors")
    assert all(
        torch.equal(got[name], value)
        for name, value in weights.items()
        if not name.endswith("num_batches_tracked")
    )


def test_training_starts_from_what_was_imported_and_averaged(
    tmp_path: Path, source: Path, weights: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        output = f"output={tmp_path}/{seed}.safetensors"
        run_import(capsys, f"source={source}", output, f"seed={seed}")
    files = f"[{tmp_path}/1.safetensors,{tmp_path}/2.safetensors]"
    soup = tmp_path / "soup.safetensors"
    average(compose_config("average", [f"checkpoint={files}", f"output={soup}", "weights=[3,1]"]))
    assert capsys.readouterr().out.splitlines() == [
        f"mean of 2 checkpoints, {len(weights)} tensors",
        f"wrote {soup}",
    ]
    with safetensors.safe_open(soup, framework="pt") as file:
        assert re.fullmatch(
            r".*/2\.safetensors sha256 \w{64} weight 1", file.metadata()["source_1"]
        )

    module = CascadeModule(detector_config("htc_r50", *DEFORMABLE), num_classes=5)
    module.load_weights(load_state_dict(soup))
    one, two = (load_state_dict(tmp_path / f"{seed}.safetensors") for seed in (1, 2))
    own = module.detector.state_dict()
    for name, value in weights.items():
        if ".fc_cls." in name or ".conv_logits." in name:
            mean = (3 * one[name].double() + two[name].double()) / 4
            assert torch.equal(own[name], mean.float()), name
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(own[name], value), name

    other = CascadeModule(
        detector_config("htc_r50", *DEFORMABLE, "module.num_classes=6"), num_classes=6
    )
    with pytest.raises(InputError, match=r"the weights do not fit the model: 12 of another shape"):
        other.load_weights(load_state_dict(soup))


def test_code_runs_in_a_trusted_file_only(
    tmp_path: Path, weights: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    trace, source = tmp_path / "ran", tmp_path / "epoch_12.pth"
    torch.save({"state_dict": written_by(weights, "v3"), "hub": Malicious(trace)}, source)
    files = (f"source={source}", f"output={tmp_path}/coco.safetensors")
    with pytest.raises(
        InputError, match=r"posix\.system.*python -m src\.import_weights trusted=true"
    ):
        run_import(capsys, *files)
    assert not trace.exists()
    import_checkpoint(compose_config("import_weights", [*MODULE, *files, "trusted=true"]))
    assert capsys.readouterr().err == f"trusted=true: code in {source} may run\n"
    assert trace.exists()


def test_output_is_checked_before_the_work(tmp_path: Path, source: Path) -> None:
    for config, run in (
        (compose_config("import_weights", [f"source={source}", "output=o.pth"]), import_checkpoint),
        (compose_config("average", [f"checkpoint=[{source},{source}]", "output=o.pth"]), average),
    ):
        with pytest.raises(InputError, match=r"must end in \.safetensors, got .*o\.pth"):
            run(config)


def test_mistakes_end_with_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "src.import_weights", "source=none.pth", "output=coco.safetensors"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "error: checkpoint none.pth does not exist\n")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["v0.6", "v3"])
def test_the_winning_model_itself(
    tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """htc_x101_dcn with COCO's 80 classes: real names and shapes, 80 classes for 46."""
    model = build_detector(
        detector_config("htc_x101_dcn", "module.num_classes=80"), init_weights=False
    )
    coco = model.state_dict()
    for name, _, today, today_shape in REAL_NAMES["v0.6"] + REAL_NAMES["v2"]:
        assert today is None or tuple(coco[today].shape) == today_shape, name
    source = tmp_path / "coco.pth"
    written = written_by(coco, layout)
    for name, shape, _, _ in REAL_NAMES[{"v0.6": "v0.6", "v3": "v2"}[layout]]:
        assert "semantic_head" in name or tuple(written[name].shape) == shape, name
    torch.save({"meta": {}, "state_dict": written}, source)
    (tmp_path / "map.yaml").write_text("tie: tie\numbrella: umbrella\n24: handbag\n")
    output = tmp_path / "start.safetensors"
    common = (f"source={source}", f"output={output}")
    config = compose_config(
        "import_weights", [*common, "class_layers=slice", f"category_map={tmp_path}/map.yaml"]
    )
    import_checkpoint(config)
    assert "  26 umbrella: from 25 umbrella" in capsys.readouterr().out
    got = load_state_dict(output)
    assert len(got) == len(coco)
    for name, value in coco.items():
        if ".fc_cls." in name or ".conv_logits." in name:
            rows = [27, 26, 25] + [80] * (".fc_cls." in name)
            own = [16, 24, 26] + [46] * (".fc_cls." in name)
            assert torch.equal(got[name][own], value[rows]), name
        else:
            assert torch.equal(got[name], value), name
    with pytest.raises(InputError, match=r"another model's: \d+ of another shape .*; \d+ that the"):
        import_checkpoint(compose_config("import_weights", [*common, "module=htc_r50"]))


def test_a_backbone_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "resnet18.pth", tmp_path / "backbone.safetensors"
    given = torchvision.models.resnet18().state_dict()
    torch.save(given, source)
    backbone = ("module=htc_r50", "module.detector.backbone.depth=18")
    neck = "module.detector.neck.in_channels=[64,128,256,512]"
    keys = (f"source={source}", f"output={output}", "scope=backbone", *backbone, neck)
    import_checkpoint(compose_config("import_weights", keys))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{source}: a ResNet, named as in torchvision, timm, mmdet or mmpretrain"
    assert ("left out", "2", "fc.*", "", "the classifier's head") in cells(lines)
    assert lines[-2] == (
        "120 tensors of the backbone loaded, 0 random (drawn from the training's seed), 0 computed "
        "by the model; 2 of the file left out: fc.weight, fc.bias"
    )
    assert lines[-1] == f"wrote {output}: the backbone alone; training draws everything else"
    written = output.read_bytes()
    found = load_state_dict(output)
    assert found.keys() == {f"backbone.{name}" for name in given if not name.startswith("fc.")}
    assert torch.equal(found["backbone.conv1.weight"], given["conv1.weight"])
    import_checkpoint(compose_config("import_weights", keys))
    assert output.read_bytes() == written
    for key, message in (
        ("scope=head", "scope must be one of detector, backbone, got head"),
        ("class_layers=slice", "class_layers must be reset with scope=backbone, got slice"),
        ("category_map=a.yaml", "category_map must be null with scope=backbone, got a.yaml"),
        ("layout=v2", "layout must be auto with scope=backbone, got v2"),
    ):
        with pytest.raises(InputError, match=message):
            import_checkpoint(compose_config("import_weights", [*keys, key]))
