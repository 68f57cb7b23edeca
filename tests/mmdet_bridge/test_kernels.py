"""The stand-in for mmcv's extension: where it goes, when it stays away, what it refuses."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import sys

import mmcv
import pytest
import torch

from src.mmdet_bridge.kernels import EXTENSION, OPERATORS, install_kernels
from src.mmdet_bridge.kernels.operators import UnsupportedOperatorError

without_compiled = pytest.mark.skipif(
    getattr(sys.modules[EXTENSION], "__file__", None) is not None,
    reason="mmcv has compiled operators",
)


@without_compiled
def test_mmcv_finds_every_operator_it_looks_for():
    import mmcv.ops

    for name in mmcv.ops.__all__:
        assert hasattr(mmcv.ops, name)
    assert sys.modules[EXTENSION] is mmcv._ext
    assert sys.modules["mmcv.ops.nms"].ext_module.nms is OPERATORS["nms"]


@without_compiled
def test_installing_twice_changes_nothing():
    from mmcv.ops.deform_conv import DeformConv2dFunction

    before = sys.modules[EXTENSION], DeformConv2dFunction.backward
    install_kernels()
    assert (sys.modules[EXTENSION], DeformConv2dFunction.backward) == before


@without_compiled
def test_an_operator_without_a_kernel_names_itself_and_the_way_out():
    from mmcv.ops import nms_match

    with pytest.raises(UnsupportedOperatorError, match="operator 'nms_match' has no kernel here"):
        nms_match(torch.rand(3, 5), 0.5)
    with pytest.raises(NotImplementedError, match="only these work without: nms, softnms, roi_ali"):
        mmcv._ext.three_nn_forward()
    with pytest.raises(
        NotImplementedError, match=r"compiled for torch \d.*MMCV_WITH_OPS=1 pip install"
    ):
        mmcv._ext.three_nn_forward()


@without_compiled
def test_python_sees_an_ordinary_module():
    extension = sys.modules[EXTENSION]
    assert not hasattr(extension, "__path__")
    with pytest.raises(AttributeError, match=r"'mmcv\._ext' has no attribute '__wrapped__'"):
        _ = extension.__wrapped__
    assert importlib.util.find_spec(EXTENSION) is not None


@without_compiled
def test_mmcv_can_describe_its_environment():
    from mmcv.utils import collect_env

    assert collect_env()["MMCV Compiler"] == "none: torchvision's kernels"


@pytest.fixture
def foreign_extension(tmp_path, monkeypatch):
    """A module of the extension's name on mmcv's path, as a compiled mmcv has it."""

    def place(source: str):
        (tmp_path / "_ext.py").write_text(source)
        monkeypatch.setattr(mmcv, "__path__", [*mmcv.__path__, str(tmp_path)])
        monkeypatch.delitem(sys.modules, EXTENSION)
        monkeypatch.setattr(mmcv, "_ext", None)
        importlib.invalidate_caches()

    return place


def test_a_compiled_extension_is_left_alone(foreign_extension, tmp_path):
    foreign_extension("nms = 'compiled'")
    install_kernels()
    assert sys.modules[EXTENSION].nms == "compiled"
    assert sys.modules[EXTENSION].__file__ == str(tmp_path / "_ext.py")


def test_a_compiled_extension_of_another_torch_is_named(foreign_extension, tmp_path):
    foreign_extension("raise ImportError('undefined symbol: _ZN3c104impl')")
    with pytest.raises(
        ImportError, match=rf"{tmp_path}/_ext\.py do not load with torch .*undefined symbol: _ZN3c"
    ):
        install_kernels()


def suppress_in_a_fresh_process(queue) -> None:
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [8, 8, 9, 9]])
    queue.put(nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)[1].tolist())


@pytest.mark.slow
def test_a_spawned_worker_has_the_kernels_too():
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=suppress_in_a_fresh_process, args=(queue,))
    worker.start()
    assert queue.get(timeout=120) == [1, 2]
    worker.join(timeout=30)
    assert worker.exitcode == 0
