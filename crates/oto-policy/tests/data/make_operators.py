"""Draws graphs of one operator, and of a few, and writes them with onnxruntime's answers: operators.zip beside this file.

Each case is a model, six observations of ordinary and of extreme size, and what onnxruntime gives for each observation alone.
`tests/operators.rs` holds the build against them. Needs onnx 1.23, onnxruntime 1.32, safetensors: python make_operators.py
"""

import json
import math
import sys
import warnings
import zipfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

warnings.filterwarnings("ignore")
onnxruntime.set_default_logger_severity(4)
OPSETS = range(9, 24)
F, D, I64, I32, B = np.float32, np.float64, np.int64, np.int32, np.bool_
KINDS = {F: TensorProto.FLOAT, D: TensorProto.DOUBLE, I64: TensorProto.INT64, I32: TensorProto.INT32, B: TensorProto.BOOL}


class Graph:
    """A graph that is being drawn: one input, `obs`, of float32."""

    def __init__(self, rng, opset, shape=None):
        self.rng, self.opset = rng, opset
        rank = rng.integers(1, 4) if shape is None else 0
        self.shape = tuple(int(n) for n in rng.integers(2, 5, rank)) if shape is None else tuple(shape)
        self.nodes, self.constants, self.count = [], [], 0
        self.strange, self.kinded, self.turn = True, False, 0

    @property
    def rank(self):
        """With the batch."""
        return len(self.shape) + 1

    def name(self):
        self.count += 1
        return f"v{self.count}"

    def op(self, kind, *inputs, n=1, **attributes):
        out = [self.name() for _ in range(n)]
        attributes = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(kind, list(inputs), out, **attributes))
        return out[0] if n == 1 else out

    def const(self, values, dtype=F):
        name = self.name()
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def floats(self, *shape, scale=1.0):
        return self.const((scale * self.rng.normal(size=shape)).astype(F))

    def flip(self, p=0.5):
        return bool(self.rng.random() < p)

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def kind(self, *choices):
        """A type, one after the other from case to case."""
        self.kinded = True
        return choices[self.turn % len(choices)]

    def axis(self, low=None, extra=0):
        """An axis behind the batch as a rule, from either end."""
        rank = self.rank + extra
        low = (0 if self.flip(0.1) else 1) if low is None else low
        axis = int(self.rng.integers(low, rank)) if rank > low else 0
        return axis - rank if self.flip(0.3) else axis

    def obs(self, dtype=F):
        if dtype is not F:
            # Integers beyond 2^31 and 2^63, and NaN, too.
            value = self.op("Mul", "obs", self.const(self.pick(1e6, 1e16))) if self.flip(0.35) else "obs"
            value = self.op("Log", "obs") if self.strange and self.flip(0.15) else value
            return self.op("Cast", value, to=KINDS[dtype])
        # NaN and infinity come about on the way, where ONNX says what becomes of them.
        return self.op("Log", "obs") if self.strange and self.flip(0.15) else "obs"

    def typed(self, name, dtype):
        return name if dtype is F else self.op("Cast", name, to=KINDS[dtype])

    def other(self, dtype=F):
        """Another value of the observation's shape."""
        return self.typed(self.op("Mul", "obs", self.floats(*self.shape)), dtype)

    def operand(self, dtype=F):
        """A constant that broadcasts with observations, or another value."""
        if self.flip(0.3):
            return self.other(dtype)
        shape = [1 if self.flip(0.3) else n for n in self.shape]
        shape = shape[int(self.rng.integers(0, len(shape) + 1)):]
        values = self.rng.normal(size=shape) * self.pick(1, 1, 3, 10)
        values = np.round(values) if dtype in (I64, I32) else values
        return self.const(values > 0 if dtype is B else values, dtype)

    def boolean(self):
        return self.op("Cast", self.op("Clip", self.obs(), **({"min": 0.0} if self.opset < 11 else {})) if self.opset < 11 else self.op("Relu", self.obs()), to=TensorProto.BOOL)

    def model(self, out, kind):
        if kind is not F:
            out = self.op("Cast", out, to=TensorProto.FLOAT)
        self.nodes[-1 if self.nodes[-1].output[0] == out else next(
            i for i, node in enumerate(self.nodes) if out in node.output)]
        for node in self.nodes:
            node.output[:] = ["action" if name == out else name for name in node.output]
            node.input[:] = ["action" if name == out else name for name in node.input]
        graph = helper.make_graph(
            self.nodes, "g",
            [helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["batch", *self.shape])],
            [helper.make_tensor_value_info("action", TensorProto.FLOAT, None)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


DRAWERS = {}


def draws(*names):
    def add(function):
        for name in names:
            DRAWERS[name] = function
        return function
    return add


@draws("Abs", "Neg", "Sign")
def _(g, op):
    dtype = g.kind(F, I64, I32, D)
    return g.op(op, g.obs(dtype)), dtype


@draws("Ceil", "Floor", "Round", "Sqrt", "Exp", "Log", "Sigmoid", "Tanh", "Reciprocal", "Relu")
def _(g, op):
    dtype = F if op == "Round" else g.kind(F, D)
    return g.op(op, g.obs(dtype)), dtype


@draws("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh",
       "Erf", "Softplus", "Softsign", "Mish", "HardSwish")
def _(g, op):
    return g.op(op, g.obs()), F


@draws("Identity")
def _(g, op):
    dtype = g.kind(F, I64, I32, D)
    return g.op(op, g.obs(dtype)), dtype


@draws("IsNaN", "IsInf")
def _(g, op):
    attributes = {}
    if op == "IsInf":
        attributes = {"detect_negative": g.pick(None, 0, 1), "detect_positive": g.pick(None, 0, 1)}
    value = g.op("Div", "obs", g.op("Floor", "obs")) if g.flip() else g.op("Exp", "obs")
    return g.op(op, value, **attributes), B


@draws("Not")
def _(g, op):
    return g.op(op, g.obs(B)), B


@draws("Elu", "Celu", "LeakyRelu", "ThresholdedRelu")
def _(g, op):
    return g.op(op, g.obs(), alpha=g.pick(None, float(g.rng.uniform(0.05, 2.5)))), F


@draws("Swish")
def _(g, op):
    return g.op(op, g.obs(), alpha=g.pick(None, 1.0, float(g.rng.uniform(0.05, 2.5)))), F


@draws("Selu")
def _(g, op):
    return g.op(op, g.obs(), alpha=g.pick(None, 1.3), gamma=g.pick(None, 0.8)), F


@draws("HardSigmoid")
def _(g, op):
    return g.op(op, g.obs(), alpha=g.pick(None, 0.1666666716337204), beta=g.pick(None, 0.4)), F


@draws("Gelu")
def _(g, op):
    return g.op(op, g.obs(), approximate=g.pick(None, "none", "tanh")), F


@draws("Shrink")
def _(g, op):
    return g.op(op, g.obs(), bias=g.pick(None, 0.0, 0.3), lambd=g.pick(None, 0.5, 1.5)), F


@draws("PRelu")
def _(g, op):
    shape = [1 if g.flip(0.3) else n for n in g.shape]
    return g.op(op, g.obs(), g.floats(*shape[g.rng.integers(0, len(shape)):])), F


@draws("Clip")
def _(g, op):
    low, high = sorted(g.rng.normal(size=2))
    if g.flip(0.15):
        low, high = high, low
    if g.opset < 11:
        return g.op(op, g.obs(), min=g.pick(None, float(low)), max=g.pick(None, float(high))), F
    dtype = g.kind(F, I64, I32, D) if g.opset >= 12 else F
    scale = 4 if dtype in (I64, I32) else 1
    low = g.const(np.round(scale * low) if scale > 1 else low, dtype) if g.flip(0.75) else ""
    high = g.const(np.round(scale * high) if scale > 1 else high, dtype) if g.flip(0.75) else ""
    inputs = [low, high] if high else [low] if low else []
    return g.op(op, g.obs(dtype), *inputs), dtype


@draws("Add", "Sub", "Mul")
def _(g, op):
    dtype = g.kind(F, I64, I32, D)
    pair = [g.obs(dtype), g.operand(dtype)]
    return g.op(op, *(pair if g.flip(0.7) else pair[::-1])), dtype


@draws("Div")
def _(g, op):
    dtype = g.kind(F, I64, I32, D)
    if dtype in (I64, I32):
        return g.op(op, g.obs(dtype), g.const(g.pick(-3, -2, 2, 3, 7) * np.ones(g.pick((), (1,), g.shape)), dtype)), dtype
    pair = [g.obs(dtype), g.operand(dtype)]
    return g.op(op, *(pair if g.flip(0.7) else pair[::-1])), dtype


@draws("Mod")
def _(g, op):
    dtype = g.kind(F, I64, I32, D)
    integer = dtype in (I64, I32)
    fmod = g.pick(None, 0, 1) if integer else 1
    if integer:
        other = g.const(g.rng.choice([-5, -3, -2, 2, 3, 7], g.pick((), (1,), g.shape)), dtype)
    else:
        other = g.const(g.rng.uniform(0.5, 3, g.pick((), (1,), g.shape)) * g.pick(1, -1), dtype)
    return g.op(op, g.obs(dtype), other, fmod=fmod), dtype


@draws("Pow")
def _(g, op):
    dtype = g.kind(F, D, I64, I32) if g.opset >= 12 else F
    if dtype in (I64, I32):
        return g.op(op, g.obs(dtype), g.const(g.pick(0, 1, 2, 3), dtype)), dtype
    if g.flip(0.2) and g.opset >= 12:
        return g.op(op, g.obs(dtype), g.const(g.pick(2, 3, -1), g.pick(I64, I32))), dtype
    if g.flip(0.2):
        return g.op(op, g.const(g.pick(2.0, 0.5, 10.0), dtype), g.obs(dtype)), dtype
    if g.flip(0.3):
        return g.op(op, g.obs(dtype), g.operand(dtype)), dtype
    return g.op(op, g.obs(dtype), g.const(g.pick(2.0, 0.5, 3.0, -1.0, -2.0, 0.0, 1.5, 0.3333), dtype)), dtype


@draws("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")
def _(g, op):
    dtype = g.kind(F, I64, I32, D)
    if op == "Equal" and g.opset < 11:
        dtype = g.kind(I64, I32)
    rounded = g.op(g.pick("Floor", "Floor", "Log"), "obs") if g.flip() else "obs"
    rounded = g.op("Mul", rounded, g.const(1e6)) if g.flip(0.2) else rounded
    pair = [g.typed(rounded, dtype), g.operand(dtype)]
    return g.op(op, *(pair if g.flip(0.7) else pair[::-1])), B


@draws("And", "Or", "Xor")
def _(g, op):
    return g.op(op, g.obs(B), g.op("Cast", g.op("Relu", g.other()), to=TensorProto.BOOL) if g.flip() else g.operand(B)), B


@draws("Max", "Min", "Mean", "Sum")
def _(g, op):
    dtype = g.kind(F, I64, I32, D) if op in ("Max", "Min") and g.opset >= 12 else g.kind(F, D)
    return g.op(op, g.obs(dtype), *(g.operand(dtype) for _ in range(g.rng.integers(0, 4)))), dtype


@draws("Where")
def _(g, op):
    dtype = g.kind(F, I64, I32)
    condition = g.op("Cast", g.op("Relu", "obs"), to=TensorProto.BOOL)
    if g.flip(0.3):
        condition = g.operand(B)
    pair = [g.obs(dtype), g.operand(dtype)]
    return g.op(op, condition, *(pair if g.flip() else pair[::-1])), dtype


def axes(g):
    count = int(g.rng.integers(1, g.rank)) if g.rank > 1 else 1
    low = 0 if g.flip(0.1) else 1
    chosen = [int(a) for a in g.rng.choice(np.arange(low, g.rank), count, replace=False)]
    return sorted(a - g.rank if g.flip(0.3) else a for a in chosen) if g.flip(0.8) else chosen


@draws("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
       "ReduceSum", "ReduceSumSquare")
def _(g, op):
    kinds = {"ReduceMax": (F, F, I64, I32), "ReduceMin": (F, F, I64, I32), "ReduceSum": (F, F, I64, I32, D),
             "ReduceMean": (F, F, D), "ReduceProd": (F, F, I64), "ReduceSumSquare": (F, F, D), "ReduceLogSumExp": (F, F, D)}
    dtype = g.kind(*dict.fromkeys(kinds.get(op, (F,))))
    keep = g.pick(None, 0, 1)
    if op == "ReduceLogSum":
        dtype, value = F, g.op("Abs", "obs")
    else:
        value = g.obs(dtype)
    given = None if g.flip(0.1) else axes(g)
    if g.opset < (13 if op == "ReduceSum" else 18):
        return g.op(op, value, axes=given, keepdims=keep), dtype
    noop = g.pick(None, 0, 1) if g.flip(0.3) else None
    inputs = [] if given is None else [g.const(np.array([] if noop and g.flip() else given), I64)]
    return g.op(op, value, *inputs, keepdims=keep, noop_with_empty_axes=noop), dtype


@draws("ArgMax", "ArgMin")
def _(g, op):
    value = g.op(g.pick("Floor", "Sqrt", "Log"), "obs") if g.flip() else "obs"
    last = g.pick(None, 0, 1) if g.opset >= 12 else None
    return g.op(op, value, axis=g.axis(), keepdims=g.pick(None, 0, 1), select_last_index=last), I64


@draws("Softmax", "LogSoftmax", "Hardmax")
def _(g, op):
    if g.opset < 13:
        axis = g.pick(None, g.axis(low=1) if g.flip(0.9) else g.axis())
    else:
        axis = g.pick(None, g.axis())
    return g.op(op, g.obs(), axis=axis), F


@draws("MatMul")
def _(g, op):
    dtype = g.kind(F, D)
    if g.flip(0.25) and g.rank >= 3:
        perm = [*range(g.rank - 2), g.rank - 1, g.rank - 2]
        return g.op(op, g.obs(dtype), g.op("Transpose", g.obs(dtype), perm=perm)), dtype
    width = g.shape[-1]
    if g.rank >= 3 and g.flip(0.3):
        return g.op(op, g.const(g.rng.normal(size=(3, g.shape[-2])), dtype), g.obs(dtype)), dtype
    shape = g.pick((width, 3), (width, 1), (width,))
    if g.rank >= 4 and g.flip(0.4):
        shape = (g.shape[-3], width, 2)
    return g.op(op, g.obs(dtype), g.const(g.rng.normal(size=shape), dtype)), dtype


@draws("Gemm")
def _(g, op):
    g.shape = (int(g.rng.integers(1, 6)),)
    outputs, across = int(g.rng.integers(1, 5)), g.pick(None, 0, 1)
    weight = g.floats(*((outputs, g.shape[0]) if across else (g.shape[0], outputs)))
    bias = [] if g.opset >= 11 and g.flip(0.3) else [g.floats(*g.pick((outputs,), (1, outputs), (1,), ()))]
    alpha, beta = g.pick(None, 1.0, 0.5), g.pick(None, 1.0, 2.0)
    if g.flip(0.1):
        return g.op(op, g.op("Transpose", "obs", perm=[1, 0]), weight, *bias, transA=1, transB=across), F
    return g.op(op, g.obs(), weight, *bias, alpha=alpha, beta=beta, transA=g.pick(None, 0), transB=across), F


@draws("Einsum")
def _(g, op):
    g.shape = (3, 4)
    equation, shape = g.pick(("bij,jk->bik", (4, 2)), ("bij,ij->b", (3, 4)), ("bij,kj->bki", (2, 4)), ("bij,j->bi", (4,)), ("bij,bkj->bik", None), ("bij->bji", ()))
    second = [g.op("Mul", "obs", g.floats(3, 4))] if shape is None else [g.floats(*shape)] if shape else []
    return g.op(op, g.obs(), *second, equation=equation), F


def window(g, dims, kernel):
    attributes = {}
    if g.flip(0.6):
        attributes["strides"] = [int(n) for n in g.rng.integers(1, 4, dims)]
    if g.flip(0.3):
        attributes["dilations"] = [int(n) for n in g.rng.integers(1, 3, dims)]
    choice = g.pick("none", "pads", "pads", "auto")
    if choice == "pads":
        attributes["pads"] = [int(g.rng.integers(0, k)) for k in [*kernel, *kernel]]
    if choice == "auto":
        attributes["auto_pad"] = g.pick("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET")
    return attributes


@draws("Conv")
def _(g, op):
    dims = g.pick(1, 2, 2, 2)
    group = g.pick(1, 1, 1, 2)
    channels = 2 * group if g.flip() else group
    g.shape = (channels, *(int(n) for n in g.rng.integers(5, 9, dims)))
    kernel = [int(n) for n in g.rng.integers(1, 4, dims)]
    outputs = group * int(g.rng.integers(1, 3))
    inputs = [g.floats(outputs, channels // group, *kernel)]
    inputs += [g.floats(outputs)] if g.flip(0.7) else []
    return g.op(op, g.obs(), *inputs, kernel_shape=kernel if g.flip(0.8) else None, group=group if group > 1 or g.flip() else None, **window(g, dims, kernel)), F


@draws("ConvTranspose")
def _(g, op):
    g.shape = (2, *(int(n) for n in g.rng.integers(2, 5, 2)))
    kernel = [int(n) for n in g.rng.integers(1, 4, 2)]
    attributes = {}
    if g.flip():
        attributes["strides"] = [int(n) for n in g.rng.integers(1, 3, 2)]
    if g.flip(0.4):
        attributes["pads"] = [int(g.rng.integers(0, 2)) for k in [*kernel, *kernel]]
    if g.flip(0.3) and "strides" in attributes:
        attributes["output_padding"] = [s - 1 for s in attributes["strides"]]
    inputs = [g.floats(2, 3, *kernel)] + ([g.floats(3)] if g.flip() else [])
    return g.op(op, g.obs(), *inputs, kernel_shape=kernel, **attributes), F


@draws("MaxPool", "AveragePool")
def _(g, op):
    dims = g.pick(1, 2, 2)
    g.shape = (2, *(int(n) for n in g.rng.integers(5, 9, dims)))
    kernel = [int(n) for n in g.rng.integers(1, 4, dims)]
    attributes = window(g, dims, kernel)
    if op == "AveragePool" and g.opset < 19 or g.opset < 10:
        attributes.pop("dilations", None)
    if g.opset >= 10 and g.flip(0.4) and "auto_pad" not in attributes:
        attributes["ceil_mode"] = g.pick(0, 1)
    if op == "AveragePool" and g.flip(0.5):
        attributes["count_include_pad"] = g.pick(0, 1)
    if op == "MaxPool" and g.flip(0.1):
        attributes["storage_order"] = 0
    return g.op(op, g.obs(), kernel_shape=kernel, **attributes), F


@draws("LpPool")
def _(g, op):
    g.shape = (2, 5, 6)
    return g.op(op, g.obs(), kernel_shape=[2, 2], p=g.pick(None, 1, 2)), F


@draws("GlobalAveragePool", "GlobalMaxPool")
def _(g, op):
    g.shape = (2, *(int(n) for n in g.rng.integers(2, 5, g.pick(1, 2))))
    return g.op(op, g.obs()), F


@draws("BatchNormalization")
def _(g, op):
    channels = g.shape[0]
    positive = g.const(g.rng.uniform(0.2, 3, channels))
    return g.op(op, g.obs(), g.floats(channels), g.floats(channels), g.floats(channels), positive,
                epsilon=g.pick(None, 1e-3), momentum=g.pick(None, 0.5)), F


@draws("LayerNormalization", "RMSNormalization")
def _(g, op):
    axis = g.axis(low=1)
    shape = g.shape[(axis - 1 if axis > 0 else axis + g.rank - 1):]
    bias = [g.floats(*shape)] if g.flip(0.6) and op == "LayerNormalization" else []
    return g.op(op, g.obs(), g.floats(*shape), *bias, axis=axis if shape != g.shape[-1:] or g.flip() else None,
                epsilon=g.pick(None, 1e-3)), F


@draws("InstanceNormalization")
def _(g, op):
    g.shape = (2, *(int(n) for n in g.rng.integers(2, 5, g.pick(1, 2))))
    return g.op(op, g.obs(), g.floats(2), g.floats(2), epsilon=g.pick(None, 1e-3)), F


@draws("GroupNormalization")
def _(g, op):
    g.shape = (4, *(int(n) for n in g.rng.integers(2, 5, g.pick(1, 2))))
    groups = g.pick(1, 2, 4)
    count = groups if g.opset < 21 else 4
    return g.op(op, g.obs(), g.floats(count), g.floats(count), num_groups=groups, epsilon=g.pick(None, 1e-3)), F


@draws("LpNormalization")
def _(g, op):
    return g.op(op, g.obs(), axis=g.pick(None, g.axis(low=1)), p=g.pick(None, 1, 2)), F


@draws("MeanVarianceNormalization")
def _(g, op):
    return g.op(op, g.obs(), axes=list(range(1, g.rank))), F


@draws("LRN")
def _(g, op):
    g.shape = (4, 3, 3)
    return g.op(op, g.obs(), size=3), F


def any_kind(g):
    return g.kind(F, I64, I32, D)


@draws("Reshape")
def _(g, op):
    dtype, size = any_kind(g), math.prod(g.shape)
    # A batch that is named keeps its place: 0, -1, or through the numbers of another dimension.
    shapes = [[0, -1], [-1, size], [0, size], [0, *g.shape[::-1]], [-1, *g.shape[::-1]], [0, 1, -1], [-1, 1, size]]
    if len(g.shape) > 1:
        shapes += [[0, 0, -1], [-1, g.shape[0], size // g.shape[0]]]
    shape = g.pick(*shapes)
    allow = g.pick(None, 0) if g.opset >= 14 else None
    if g.opset >= 14 and 0 not in shape and g.flip(0.2):
        allow = 1
    return g.op(op, g.obs(dtype), g.const(shape, I64), allowzero=allow), dtype


@draws("Flatten")
def _(g, op):
    axis = g.pick(None, 1, 1, 1, 0, *( [-1, g.rank - 1] if g.opset >= 11 else [g.rank - 1]))
    return g.op(op, g.obs(), axis=axis), F


@draws("Transpose")
def _(g, op):
    dtype = any_kind(g)
    perm = [0, *(int(p) for p in 1 + g.rng.permutation(g.rank - 1))]
    if g.flip(0.15):
        there = g.op(op, g.obs(dtype), perm=perm if g.flip() else None)
        back = list(np.argsort(perm)) if g.nodes[-1].attribute else None
        return g.op(op, there, perm=None if back is None else [int(p) for p in back]), dtype
    return g.op(op, g.obs(dtype), perm=perm), dtype


@draws("Squeeze", "Unsqueeze")
def _(g, op):
    dtype = any_kind(g)
    if op == "Squeeze":
        shape = list(g.shape)
        at = sorted({int(n) for n in g.rng.integers(0, len(shape), 2)})
        for i in at:
            shape[i] = 1
        g.shape = tuple(shape)
        given = [i + 1 - (g.rank if g.flip(0.3) and g.opset >= 11 else 0) for i in at]
    else:
        # Several in any order, each from either end.
        count = 2 if g.flip(0.4) else 1
        rank = g.rank + count
        given = [int(axis) for axis in 1 + g.rng.permutation(rank - 1)[:count]]
        given = [axis - rank if g.flip(0.3) and g.opset >= 11 else axis for axis in given]
    if g.opset < 13:
        return g.op(op, g.obs(dtype), axes=given), dtype
    return g.op(op, g.obs(dtype), g.const(given, I64)), dtype


@draws("Concat")
def _(g, op):
    dtype = any_kind(g)
    axis = g.axis(low=1)
    parts = [g.obs(dtype), g.other(dtype)] + ([g.obs(dtype)] if g.flip(0.3) else [])
    return g.op(op, *parts, axis=axis), dtype


@draws("Split")
def _(g, op):
    size = int(g.rng.integers(2, 7))
    g.shape = (*g.shape[:-1], size)
    axis = g.pick(g.rank - 1, -1)
    first = int(g.rng.integers(1, size))
    how = g.pick("sizes", "sizes", "equal")
    if how == "equal" and (size % 2 == 0 or g.opset >= 18):
        extra = {"num_outputs": 2} if g.opset >= 18 else {}
        return g.op(op, g.obs(), n=2, axis=axis, **extra)[g.pick(0, 1)], F
    if g.opset < 13:
        return g.op(op, g.obs(), n=2, axis=axis, split=[first, size - first])[g.pick(0, 1)], F
    return g.op(op, g.obs(), g.const([first, size - first], I64), n=2, axis=axis)[g.pick(0, 1)], F


@draws("Slice")
def _(g, op):
    dtype = g.kind(F, I64, F, I32, D)
    size = int(g.rng.integers(3, 8))
    g.shape = (*g.shape[:-1], size)
    axis = g.pick(g.rank - 1, -1) if g.opset >= 10 else g.rank - 1
    start, end = (int(n) for n in g.rng.integers(-size, size, 2))
    end = g.pick(end, end, 2**31 - 1, 2**63 - 1, size, 100)
    if g.opset < 10:
        return g.op(op, g.obs(dtype), starts=[start], ends=[end], axes=[axis]), dtype
    step = g.pick(1, 1, 1, 2, -1, -2)
    if step < 0 and g.flip():
        start, end = g.pick((-1, -2**63), (size, -2**31), (100, -100))
    inputs = [g.const([n], I64) for n in (start, end, axis, step)]
    inputs = inputs[:3] if step == 1 and g.flip() else inputs
    if g.rank == 2 and len(inputs) == 3 and g.flip(0.2):
        inputs = [g.const([0, start], I64), g.const([2**31 - 1, end], I64)]
    return g.op(op, g.obs(dtype), *inputs), dtype


@draws("Gather")
def _(g, op):
    dtype = any_kind(g)
    axis = g.axis(low=1)
    size = g.shape[axis - 1 if axis > 0 else axis]
    low = -size if g.opset >= 11 else 0
    shape = g.pick((), (1,), (3,), (2, 2))
    indices = g.const(g.rng.integers(low, size, shape), g.pick(I64, I64, I32))
    if g.flip(0.2):
        index = g.op("Cast", g.op("Clip", "obs", g.const(0.0), g.const(4.0)) if g.opset >= 11 else g.op("Clip", "obs", min=0.0, max=4.0), to=TensorProto.INT64)
        return g.op(op, g.floats(5, 3) if g.flip() else g.floats(5), index), F
    return g.op(op, g.obs(dtype), indices, axis=axis), dtype


@draws("GatherElements")
def _(g, op):
    axis = g.axis(low=1)
    best = g.op("ArgMax", g.other(), axis=axis, keepdims=1)
    return g.op(op, g.obs(), best, axis=axis), F


@draws("GatherND")
def _(g, op):
    g.shape = (3, 4)
    index = g.op("ArgMax", g.other(), axis=1, keepdims=0)
    index = g.op("Unsqueeze", index, axes=[2]) if g.opset < 13 else g.op("Unsqueeze", index, g.const([2], I64))
    return g.op(op, g.op("Transpose", "obs", perm=[0, 2, 1]), index, batch_dims=2), F


@draws("Expand")
def _(g, op):
    g.shape = (1, *g.shape[1:])
    value = g.op("Mul", "obs", g.floats(3, *g.shape[1:]))
    return g.op(op, g.obs(), g.op("Shape", value)), F


@draws("Shape")
def _(g, op):
    # Sizes as numbers: those behind the batch.
    extra = {} if g.opset < 15 else {"start": g.pick(1, -1), "end": g.pick(None, g.rank)}
    shape = g.op(op, "obs", **extra)
    last = g.op("Gather", shape, g.const(-1 if g.opset >= 11 else (g.rank - 1 if not extra else 0), I64), axis=0)
    return g.op("Mul", "obs", g.op("Cast", last, to=TensorProto.FLOAT)), F


@draws("ConstantOfShape")
def _(g, op):
    value = numpy_helper.from_array(np.array([g.pick(0.0, 2.5)], F)) if g.flip() else None
    return g.op("Add", "obs", g.op(op, g.op("Shape", "obs"), value=value)), F


@draws("Constant")
def _(g, op):
    tensor = numpy_helper.from_array(g.rng.normal(size=g.pick((), (1,), g.shape)).astype(F))
    if g.opset >= 12 and g.flip():
        named = g.pick({"value_float": 1.25}, {"value_floats": [float(x) for x in g.rng.normal(size=g.shape[-1])]})
        return g.op("Add", "obs", g.op(op, **named)), F
    return g.op("Add", "obs", g.op(op, value=tensor)), F


@draws("Tile")
def _(g, op):
    return g.op(op, g.obs(), g.const([1, *g.rng.integers(1, 4, g.rank - 1)], I64)), F


@draws("Pad")
def _(g, op):
    mode = g.pick(None, "constant", "reflect", "edge")
    pads = [0, *(int(n) for n in g.rng.integers(0, 2, g.rank - 1)), 0, *(int(n) for n in g.rng.integers(0, 2, g.rank - 1))]
    if g.opset < 11:
        return g.op(op, g.obs(), mode=mode, pads=pads, value=g.pick(None, 1.5) if mode in (None, "constant") else None), F
    inputs = [g.const(pads, I64)]
    if mode in (None, "constant") and g.flip():
        inputs.append(g.const(1.5))
        if g.opset >= 18 and g.flip():
            inputs = [g.const([1, 1], I64), inputs[1], g.const([g.axis(low=1)], I64)]
    return g.op(op, g.obs(), *inputs, mode=mode), F


@draws("Cast")
def _(g, op):
    dtype = g.pick(F, I64, I32, B, D)
    out = g.op(op, g.obs(g.kind(F, I64, I32, B, D)), to=KINDS[dtype])
    return out, dtype


@draws("CastLike")
def _(g, op):
    dtype = g.kind(F, I64, I32, B, D)
    return g.op(op, g.obs(), g.const(1, dtype)), dtype


@draws("Dropout")
def _(g, op):
    if g.opset < 12:
        return g.op(op, g.obs(), ratio=g.pick(None, 0.3)), F
    return g.op(op, g.obs(), *([g.const(0.3)] if g.flip() else []), seed=g.pick(None, 3)), F


@draws("OneHot")
def _(g, op):
    g.shape = (int(g.rng.integers(1, 4)),)
    values = g.const(g.pick([0.0, 1.0], [-1.0, 2.0]))
    axis = g.pick(None, -1, 1)
    index = g.op("Cast", g.op("Abs", "obs"), to=TensorProto.INT64)
    return g.op(op, index, g.const(g.pick(5, [5]), I64), values, axis=axis), F


@draws("CumSum")
def _(g, op):
    return g.op(op, g.obs(), g.const(g.axis(low=1), g.pick(I64, I32)), exclusive=g.pick(None, 0, 1), reverse=g.pick(None, 0, 1)), F


@draws("TopK")
def _(g, op):
    size = int(g.rng.integers(3, 7))
    g.shape = (*g.shape[:-1], size)
    k = int(g.rng.integers(1, size + 1))
    extra = {} if g.opset < 11 else {"largest": g.pick(None, 0, 1), "sorted": g.pick(None, 1)}
    out = g.op(op, g.obs(), g.const([k], I64), n=2, axis=g.pick(None, -1), **extra)
    return g.pick((out[0], F), (out[1], I64))


@draws("Trilu")
def _(g, op):
    k = [g.const(int(g.rng.integers(-2, 3)), I64)] if g.flip() else []
    return g.op(op, g.obs(), *k, upper=g.pick(None, 0, 1)), F


@draws("DepthToSpace", "SpaceToDepth")
def _(g, op):
    g.shape = (4, 2, 4)
    mode = {"mode": g.pick(None, "DCR", "CRD")} if op == "DepthToSpace" and g.opset >= 11 else {}
    return g.op(op, g.obs(), blocksize=2, **mode), F


@draws("Resize")
def _(g, op):
    g.shape = (1, 3, 4)
    scales = g.const([1.0, 1.0, 2.0, 2.0])
    inputs = [scales] if g.opset < 11 else [g.const([]) if g.opset < 13 else "", scales]
    extra = {} if g.opset < 11 else {"coordinate_transformation_mode": g.pick(None, "asymmetric", "align_corners"), "nearest_mode": g.pick(None, "floor")}
    return g.op(op, g.obs(), *inputs, mode=g.pick(None, "nearest", "linear"), **extra), F


@draws("Size")
def _(g, op):
    return g.op("Mul", "obs", g.op("Cast", g.op(op, g.floats(*g.shape)), to=TensorProto.FLOAT)), F


@draws("LSTM", "GRU", "RNN")
def _(g, op):
    g.shape = (3, 2)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    steps = g.op("Transpose", "obs", perm=[1, 0, 2])
    out = g.op(op, steps, g.floats(1, gates * 3, 2), g.floats(1, gates * 3, 3), n=2, hidden_size=3)
    return g.op("Transpose", out[1], perm=[1, 0, 2]), F


@draws("Attention")
def _(g, op):
    g.shape = (3, 4)
    return g.op(op, g.obs(), g.other(), g.other(), q_num_heads=2, kv_num_heads=2), F


UNARY = ["Relu", "Tanh", "Sigmoid", "Elu", "Softplus", "LeakyRelu", "Exp", "Neg", "Abs", "Softsign", "Clip", "Erf", "Sin"]


@draws("composed")
def _(g, op):
    """A few operators, one behind the other, with a way around them."""
    g.shape = (int(g.rng.integers(2, 6)),)
    width, at = g.shape[0], "obs"
    g.used = set()

    def step(at, width):
        kind = g.pick("linear", "unary", "unary", "norm", "residual", "softmax", "arith", "reshape", "gate", "log", "concat", "slice", "heads", "choose", "square")
        if kind == "linear":
            out = int(g.rng.integers(2, 6))
            return g.op("Gemm", at, g.floats(width, out), g.floats(out)), out
        if kind == "unary":
            name = g.pick(*UNARY)
            if name == "Clip":
                return (g.op(name, at, min=-1.0, max=1.0) if g.opset < 11 else g.op(name, at, g.const(-1.0), g.const(1.0))), width
            return g.op(name, at), width
        if kind == "norm" and g.opset >= 17:
            return g.op("LayerNormalization", at, g.floats(width), g.floats(width)), width
        if kind == "norm":
            mean = g.op("ReduceMean", at, axes=[1], keepdims=1)
            centred = g.op("Sub", at, mean)
            spread = g.op("Sqrt", g.op("Add", g.op("ReduceMean", g.op("Mul", centred, centred), axes=[1], keepdims=1), g.const(1e-5)))
            return g.op("Div", centred, spread), width
        if kind == "residual":
            return g.op("Add", at, g.op("Tanh", g.op("MatMul", at, g.floats(width, width)))), width
        if kind == "softmax":
            return g.op(g.pick("Softmax", "LogSoftmax"), at, axis=1), width
        if kind == "arith":
            return g.op(g.pick("Add", "Sub", "Mul", "Div", "Max", "Min"), at, g.floats(width)), width
        if kind == "reshape" and width % 2 == 0:
            return g.op("Flatten", g.op("Transpose", g.op("Reshape", at, g.const([0, 2, width // 2], I64)), perm=[0, 2, 1])), width
        if kind == "gate":
            return g.op("Mul", at, g.op("Sigmoid", at)), width
        if kind == "log":
            return g.op("Log", g.op("Add", g.op("Exp", at), g.const(1.0))), width
        if kind == "concat":
            return g.op("Concat", at, g.op("Tanh", at), axis=1), 2 * width
        if kind == "slice" and width > 2:
            return g.op("Slice", at, *(g.const([n], I64) for n in (1, 2**31 - 1, 1))) if g.opset >= 10 else g.op("Slice", at, starts=[1], ends=[2**31 - 1], axes=[1]), width - 1
        if kind == "choose":
            return g.op("Where", g.op("Greater", at, g.const(0.0)), at, g.op("Mul", at, g.const(0.25))), width
        if kind == "square":
            return g.op("Pow", at, g.const(2.0)), width
        if kind == "heads" and width % 2 == 0:
            q = g.op("Reshape", g.op("MatMul", at, g.floats(width, width)), g.const([0, 2, width // 2], I64))
            k = g.op("Transpose", g.op("Reshape", at, g.const([-1, 2, width // 2], I64)), perm=[0, 2, 1])
            weights = g.op("Softmax", g.op("MatMul", q, k), axis=2)
            return g.op("Reshape", g.op("MatMul", weights, q), g.const([-1, width], I64)), width
        return at, width

    for _ in range(int(g.rng.integers(3, 9))):
        at, width = step(at, width)
    return g.op("Identity", at) if at == "obs" else at, F


def observations(rng, shape, large):
    sizes = [1.0, 3.0, 0.1, 100.0, 1e4, 1.0]
    rows = np.stack([size * rng.normal(size=shape) for size in sizes])
    # Whole numbers and halves, where rounding and comparing have edges.
    rows[2] = rng.integers(-6, 7, shape) / 2
    rows[5] = rng.choice([0.0, -0.0, 1.0, -1.0, 1e4, -1e4, 88.0, -88.0, 0.5, -1.5, 20.0], shape)
    rows = np.clip(rows, -1e4, 1e4)
    if large:
        rows = np.concatenate([rows, np.stack([size * rng.uniform(-1, 1, shape) for size in ((1e12, 1e20, 1e30, 3e38) if large > 1 else (1e12, 1e20, 1e30))])])
    return rows.astype(F)


def answers(model, rows):
    """For each observation alone; None if the case is none."""
    try:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = [session.run(None, {"obs": row[None]})[0] for row in rows]
    except Exception as error:
        if "-v" in sys.argv:
            print(model.graph.node[-1].op_type, model.opset_import[0].version, str(error)[:150].replace("\n", " "))
        return None
    if any(a.ndim < 1 or a.shape[0] != 1 or a.shape != found[0].shape or a.size == 0 for a in found):
        return None
    return np.concatenate(found)


def versions(op):
    """Opsets that have a definition of their own for the operator, each with those up to the next."""
    if op == "composed":
        return [list(range(9, 13)), list(range(13, 18)), list(range(18, 24))] * 6
    own = sorted({s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == op and s.domain == ""})
    ranges = []
    for i, first in enumerate(own):
        last = own[i + 1] - 1 if i + 1 < len(own) else 99
        opsets = [v for v in OPSETS if first <= v <= last]
        if opsets:
            ranges.append(opsets)
    return ranges


# Operators that are drawn to be refused, and those of which onnxruntime makes this or that where NaN comes.
UNREAD = {"Attention", "CastLike", "ConvTranspose", "GRU", "LRN", "LSTM", "LpPool", "MeanVarianceNormalization", "OneHot", "RNN", "Resize",
          "Size", "Tan", "Trilu"}
UNSAID = {"GlobalMaxPool", "Hardmax", "MaxPool"}
# Operators that are also shown numbers of extreme size. Others add up in another order, or are curves that only double precision follows there.
LARGE = {"Abs", "Acosh", "ArgMax", "ArgMin", "Asinh", "Atan", "Ceil", "Celu", "Clip", "Div", "Elu", "Equal", "Erf", "Floor", "Gelu", "Greater",
         "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "LpNormalization", "Max",
         "Min", "Mish", "Neg", "RMSNormalization", "ReduceMax", "ReduceMin", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Softplus",
         "Softsign", "Sqrt", "Tanh", "ThresholdedRelu", "TopK", "Where"}


def main():
    each = int(next((a[2:] for a in sys.argv if a.startswith("n=")), 8))
    seed = int(next((a[2:] for a in sys.argv if a.startswith("s=")), 1))
    where = next((a[2:] for a in sys.argv if a.startswith("o=")), "operators.zip")
    only = [a for a in sys.argv[1:] if a in DRAWERS]
    tensors, facts, missing = {}, [], []
    for op in only or DRAWERS:
        rng, turn = np.random.default_rng([seed, *op.encode()]), 0
        ranges = versions(op)
        for opsets in ranges:
            found, seen = 0, set()
            wanted = each if len(ranges) > 3 else 2 * each
            wanted = 1 if op in UNREAD else 5 if op == "composed" else wanted
            for _ in range(100):
                turn += 1
                if found == wanted:
                    break
                opset = int(rng.choice([opsets[0], opsets[-1], *opsets]))
                g = Graph(rng, opset)
                g.strange, g.turn = op not in UNSAID, turn
                try:
                    out, dtype = DRAWERS[op](g, op)
                    model = g.model(out, dtype)
                except IndexError:
                    continue
                rows = observations(rng, g.shape, (op in LARGE) + (op in LARGE and op not in ("LpNormalization", "RMSNormalization")))
                values = answers(model, rows)
                if values is None:
                    continue
                at = len(facts)
                facts.append([op, opset])
                tensors[f"{at}.model"] = np.frombuffer(model.SerializeToString(), np.uint8)
                tensors[f"{at}.obs"] = rows
                tensors[f"{at}.action"] = values.astype(F)
                found += 1
                wanted = max(wanted, 6) if g.kinded and op not in UNREAD else wanted
            if found == 0:
                missing.append((op, opsets[0], opsets[-1]))
    data = save(tensors, {"cases": json.dumps(facts)})
    with zipfile.ZipFile(where, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(zipfile.ZipInfo("cases.safetensors", (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED, 9)
    print(len(facts), "cases; none for", missing)


main()
