"""Deformable convolution, v1 and v2, through mmcv's own layers: values and gradients."""

from __future__ import annotations

import gc

import psutil
import pytest
import torch
from mmcv.ops import (
    DeformConv2d,
    DeformConv2dPack,
    ModulatedDeformConv2dPack,
    deform_conv2d,
    modulated_deform_conv2d,
)
from torch.utils._python_dispatch import TorchDispatchMode

from src.mmdet_bridge.kernels import OPERATORS
from tests.helpers import plain_kernels

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
    ),
]
GEOMETRIES = [
    {},
    {"padding": (1, 1)},
    {"stride": (2, 2), "padding": (1, 1)},
    {"stride": (1, 2), "padding": (2, 0), "dilation": (2, 1)},
    {"padding": (1, 1), "groups": 2},
    {"padding": (1, 1), "deform_groups": 2},
    {"padding": (1, 1), "groups": 4, "deform_groups": 2},
    {"kernel": (1, 1)},
    {"kernel": (2, 3), "padding": (1, 2), "groups": 2, "deform_groups": 4},
]


class Case:
    """Random tensors of one layer; offsets reach beyond the edge and never meet a cell exactly."""

    def __init__(self, kernel=(3, 3), device="cpu", dtype=torch.float64, size=(6, 7), **geometry):
        self.geometry = {
            "stride": (1, 1),
            "padding": (0, 0),
            "dilation": (1, 1),
            "groups": 1,
            "deform_groups": 1,
        } | geometry
        out = [
            (side + 2 * padding - dilation * (tap - 1) - 1) // stride + 1
            for side, padding, dilation, tap, stride in zip(
                size,
                self.geometry["padding"],
                self.geometry["dilation"],
                kernel,
                self.geometry["stride"],
                strict=True,
            )
        ]
        generator = torch.Generator().manual_seed(0)

        def uniform(*shape, scale=1.0):
            values = torch.rand(shape, generator=generator, dtype=dtype) * 2 - 1
            return (values * scale).to(device).requires_grad_()

        taps = kernel[0] * kernel[1] * self.geometry["deform_groups"]
        self.features = uniform(2, 4, *size)
        self.offset = uniform(2, 2 * taps, *out, scale=2.5)
        self.mask = uniform(2, taps, *out)
        self.weight = uniform(8, 4 // self.geometry["groups"], *kernel)
        self.bias = uniform(8)

    def v1(self):
        return self.features, self.offset, self.weight

    def v2(self):
        return self.features, self.offset, self.mask, self.weight, self.bias

    def positional(self):
        return tuple(self.geometry.values())


def assert_gradients_equal(got, expected, tensors):
    gradient = torch.rand_like(expected.transpose(-1, -2)).transpose(-1, -2)
    pairs = zip(
        torch.autograd.grad(got, tensors, gradient),
        torch.autograd.grad(expected, tensors, gradient),
        strict=True,
    )
    for ours, plain in pairs:
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_v1_equals_plain_torch(geometry, device):
    case = Case(**geometry, device=device)
    expected = plain_kernels.deform_conv(*case.v1(), **case.geometry)
    got = deform_conv2d(*case.v1(), *case.positional())
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    assert_gradients_equal(got, expected, case.v1())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_v2_equals_plain_torch(geometry, with_bias, device):
    case = Case(**geometry, device=device)
    tensors = case.v2() if with_bias else case.v2()[:4]
    bias = case.bias if with_bias else None
    expected = plain_kernels.deform_conv(*case.v1(), mask=case.mask, bias=bias, **case.geometry)
    got = modulated_deform_conv2d(*case.v2()[:4], bias, *case.positional())
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    assert_gradients_equal(got, expected, tensors)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("is_modulated", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "geometry",
    [
        {"padding": (1, 1)},
        {"padding": (2, 1), "stride": (2, 1), "dilation": (1, 2), "deform_groups": 2},
        {"kernel": (2, 3), "padding": (1, 2), "groups": 2},
    ],
    ids=str,
)
def test_offset_gradient_at_the_border_is_mmcvs(geometry, dtype, is_modulated, device):
    """Samples on and around -1, 0, the last cell and the size, where the kernels could differ."""
    case = Case(**geometry, device=device, dtype=dtype, size=(4, 5))
    kernel = tuple(case.weight.shape[-2:])
    generator = torch.Generator().manual_seed(1)
    choices = torch.tensor([-2, -1.25, -1, -1, -0.5, 0, 0, 0, 0.25, 1, 1, 1.5, 2, 3], dtype=dtype)
    drawn = torch.randint(len(choices), case.offset.shape, generator=generator)
    for offset in (choices[drawn], torch.zeros(case.offset.shape, dtype=dtype)):
        offset = offset.to(device).requires_grad_()
        tensors = (case.features, offset, case.weight)
        if is_modulated:
            got = modulated_deform_conv2d(
                case.features, offset, case.mask, case.weight, None, *case.positional()
            )
        else:
            got = deform_conv2d(*tensors, *case.positional())
        gradient = torch.rand(got.shape, generator=generator, dtype=dtype).to(device)
        (by_offset,) = torch.autograd.grad(got, [offset], gradient)

        mask = case.mask if is_modulated else torch.ones_like(case.mask)
        groups, deform_groups = case.geometry["groups"], case.geometry["deform_groups"]
        taps = kernel[0] * kernel[1]
        by_columns = torch.einsum(
            "ngoyx,goct->ngctyx",
            gradient.reshape(2, groups, -1, *got.shape[-2:]),
            case.weight.reshape(groups, -1, 4 // groups, taps),
        )
        by_columns = by_columns.reshape(2, deform_groups, -1, taps, *got.shape[-2:])
        by_columns = by_columns.transpose(2, 3)
        by_columns = by_columns * mask.reshape(2, deform_groups, taps, 1, *got.shape[-2:])
        expected = plain_kernels.offset_gradient(
            by_columns.detach(),
            case.features.detach(),
            offset.detach(),
            kernel=kernel,
            stride=case.geometry["stride"],
            padding=case.geometry["padding"],
            dilation=case.geometry["dilation"],
            deform_groups=deform_groups,
        )
        close = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {}
        torch.testing.assert_close(by_offset, expected, **close)


@pytest.mark.parametrize("layer_type", [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_fresh_offsets_get_no_gradient_from_outside_of_the_features(layer_type):
    """The padding's samples of a fresh layer lie exactly on -1 and on the size."""
    torch.manual_seed(0)
    layer = layer_type(1, 1, 3, padding=1, bias=False)

    torch.nn.init.zeros_(layer.conv_offset.weight)
    torch.nn.init.zeros_(layer.conv_offset.bias)
    seen = []
    layer.conv_offset.register_forward_hook(
        lambda *call: call[-1].retain_grad() or seen.append(call[-1])
    )
    layer(torch.rand(1, 1, 4, 4)).sum().backward()
    gradient = seen[0].grad[0, :18].reshape(3, 3, 2, 4, 4)
    assert gradient[0, :, :, 0].eq(0).all()  # the upper taps of the first row: y is -1
    assert gradient[2, :, :, -1].eq(0).all()  # the lower taps of the last row: y is the height
    assert gradient[:, 0, :, :, 0].eq(0).all()
    assert gradient[:, 2, :, :, -1].eq(0).all()
    assert gradient[1, 1].ne(0).any()


@pytest.mark.parametrize("device", DEVICES)
def test_gradcheck(device):
    case = Case(
        kernel=(2, 2), padding=(1, 1), groups=2, deform_groups=2, device=device, size=(3, 4)
    )
    positional = case.positional()
    assert torch.autograd.gradcheck(
        lambda *tensors: deform_conv2d(*tensors, *positional), case.v1(), nondet_tol=1e-12
    )
    assert torch.autograd.gradcheck(
        lambda *tensors: modulated_deform_conv2d(*tensors, *positional),
        case.v2(),
        nondet_tol=1e-12,
    )


def test_zero_offsets_are_an_ordinary_convolution():
    case = Case(padding=(1, 1), groups=2)
    got = deform_conv2d(
        case.features, torch.zeros_like(case.offset), case.weight, *case.positional()
    )
    expected = torch.nn.functional.conv2d(case.features, case.weight, padding=1, groups=2)
    torch.testing.assert_close(got, expected)


def test_channels_last_features_give_the_same():
    case = Case(padding=(1, 1))
    strided = [tensor.detach().to(memory_format=torch.channels_last) for tensor in case.v1()]
    strided = [tensor.requires_grad_() for tensor in strided]
    got = deform_conv2d(*strided, *case.positional())
    expected = deform_conv2d(*case.v1(), *case.positional())
    torch.testing.assert_close(got, expected)
    gradient = torch.rand_like(expected)
    for ours, plain in zip(
        torch.autograd.grad(got, strided, gradient),
        torch.autograd.grad(expected, case.v1(), gradient),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain)


class CountBackwards(TorchDispatchMode):
    """How often torchvision's backward kernel runs."""

    runs = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        self.runs += name == "torchvision::_deform_conv2d_backward"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wanted", [(0, 1, 2), (0,), (1,), (2,), (0, 1), (1, 2)], ids=lambda wanted: f"of {wanted}"
)
def test_v1_backward_runs_the_kernel_once(wanted):
    case = Case(padding=(1, 1))
    expected = plain_kernels.deform_conv(*case.v1(), **case.geometry).square().sum()
    tensors = [case.v1()[index] for index in wanted]
    frozen = [tensor for index, tensor in enumerate(case.v1()) if index not in wanted]
    gradients = torch.autograd.grad(expected, tensors)
    for tensor in frozen:
        tensor.requires_grad_(False)
    loss = deform_conv2d(*case.v1(), *case.positional()).square().sum()
    with CountBackwards() as counter:
        loss.backward()
    assert counter.runs == 1
    for tensor, gradient in zip(tensors, gradients, strict=True):
        torch.testing.assert_close(tensor.grad, gradient)
    assert all(tensor.grad is None for tensor in frozen)


def test_partial_and_repeated_backwards_do_not_mix():
    """Gradients asked for one tensor at a time, from two losses on one graph and a shared one."""
    case = Case(padding=(1, 1))
    got = deform_conv2d(*case.v1(), *case.positional())
    expected = plain_kernels.deform_conv(*case.v1(), **case.geometry)
    for power in (2, 3):
        for tensor in case.v1():
            (ours,) = torch.autograd.grad(got.pow(power).sum(), tensor, retain_graph=True)
            (plain,) = torch.autograd.grad(expected.pow(power).sum(), tensor, retain_graph=True)
            torch.testing.assert_close(ours, plain)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", ["weight", "offset", ""])
def test_many_steps_keep_no_memory(frozen):
    """A kept gradient of the weight would be 2.4 MB a step, 240 MB in all."""
    layer = DeformConv2d(256, 256, 3, padding=1)
    layer.weight.requires_grad_(frozen != "weight")
    features = torch.rand(1, 256, 4, 4, requires_grad=frozen != "offset")
    offset = torch.rand(1, 18, 4, 4, requires_grad=frozen != "offset")

    def step():
        layer.zero_grad(set_to_none=True)
        layer(features, offset).sum().backward()

    for _ in range(5):
        step()
    gc.collect()
    before = psutil.Process().memory_info().rss
    for _ in range(100):
        step()
    gc.collect()
    assert psutil.Process().memory_info().rss - before < 40e6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_float32_rounded_once(dtype, device):
    case = Case(padding=(1, 1), deform_groups=2, dtype=torch.float32, device=device)
    halves = [tensor.detach().to(dtype).requires_grad_() for tensor in case.v2()]
    exact = [tensor.detach().float().requires_grad_() for tensor in halves]
    ulp = 0 if device == "cpu" else torch.finfo(dtype).eps
    for pick, function in (
        ([0, 1, 3], deform_conv2d),
        ([0, 1, 2, 3, 4], modulated_deform_conv2d),
    ):
        got = function(*(halves[index] for index in pick), *case.positional())
        expected = function(*(exact[index] for index in pick), *case.positional())
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected.to(dtype), rtol=ulp, atol=ulp)
        gradient = torch.rand_like(got)
        pairs = zip(
            torch.autograd.grad(got, [halves[index] for index in pick], gradient),
            torch.autograd.grad(expected, [exact[index] for index in pick], gradient.float()),
            strict=True,
        )
        for half, full in pairs:
            assert half.dtype == dtype
            torch.testing.assert_close(half, full.to(dtype), rtol=4 * ulp, atol=4 * ulp)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layer_type", [DeformConv2dPack, ModulatedDeformConv2dPack])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_trains_under_autocast(dtype, layer_type, device):
    """Gradients of float32 weights, close to those of training in float32."""
    torch.manual_seed(0)
    layer = layer_type(8, 8, 3, padding=1, bias=False).to(device)
    torch.nn.init.normal_(layer.conv_offset.weight, std=0.05)
    features = torch.rand(2, 8, 12, 12, device=device)
    gradients = []
    for enabled in (True, False):
        layer.zero_grad()
        with torch.autocast(device, dtype=dtype, enabled=enabled):
            output = layer(features)
            assert output.dtype == (dtype if enabled else torch.float32)
            loss = output.float().square().mean()
        loss.backward()
        gradients.append([parameter.grad for parameter in layer.parameters()])
    for half, full in zip(*gradients, strict=True):
        assert half.dtype == torch.float32
        assert (half - full).norm() < 0.05 * full.norm()


def test_the_two_backward_operators_of_v1():
    """What mmcv's autograd function would call one after the other."""
    case = Case(padding=(1, 1), stride=(2, 1), groups=2, deform_groups=2)
    features, offset, weight = case.v1()
    expected = plain_kernels.deform_conv(features, offset, weight, **case.geometry)
    gradient = torch.rand_like(expected)
    by_features, by_offset, by_weight = torch.autograd.grad(expected, case.v1(), gradient)
    sizes = {
        **{"kW": 3, "kH": 3, "dW": 1, "dH": 2, "padW": 1, "padH": 1, "dilationW": 1},
        **{"dilationH": 1, "group": 2, "deformable_group": 2, "im2col_step": 2},
    }
    scratch = torch.zeros(0)
    with torch.no_grad():
        got_features, got_offset = torch.empty_like(features), torch.empty_like(offset)
        OPERATORS["deform_conv_backward_input"](
            features, offset, gradient, got_features, got_offset, weight, scratch, **sizes
        )
        got_weight = torch.ones_like(weight)
        OPERATORS["deform_conv_backward_parameters"](
            features, offset, gradient, got_weight, scratch, scratch, **sizes, scale=0.5
        )
    torch.testing.assert_close(got_features, by_features)
    torch.testing.assert_close(got_offset, by_offset)
    torch.testing.assert_close(got_weight, 1 + 0.5 * by_weight)
