"""Makes the small models beside this file: random weights in the layouts of Stable-Baselines3 and sb3-contrib.

Each is written as ONNX and as safetensors with PyTorch's names; onnxruntime's outputs for random observations are the
golden data of both. Needs numpy, onnx 1.23 and onnxruntime 1.31: python make_models.py
"""

import json
import struct

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(7)


def linear(inputs, outputs):
    weight = rng.normal(size=(outputs, inputs)).astype(np.float32) / np.sqrt(inputs)
    return weight.astype(np.float32), rng.normal(size=outputs).astype(np.float32) * np.float32(0.1)


class Graph:
    """Nodes in a row, each reading what the one before gave."""

    def __init__(self, shape):
        self.nodes, self.constants, self.at = [], [], "obs"
        self.input = helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["batch", *shape])
        self.outputs = []

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op, *constants, to=None, **attributes):
        to = to or f"v{len(self.nodes)}"
        inputs = [self.at, *(c if isinstance(c, str) else self.constant(c) for c in constants)]
        self.nodes.append(helper.make_node(op, inputs, [to], name=f"{op}_{to}", **attributes))
        self.at = to
        return self

    def give(self, shape, kind=TensorProto.FLOAT):
        self.outputs.append(helper.make_tensor_value_info(self.at, kind, ["batch", *shape]))
        return self

    def model(self):
        graph = helper.make_graph(self.nodes, "policy", [self.input], self.outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def write(self, name):
        onnx.save(self.model(), f"{name}.onnx")


def write_safetensors(name, tensors):
    header, data = {}, b""
    for key, array in tensors.items():
        raw = array.tobytes()
        kind = {"float32": "F32", "float64": "F64"}[str(array.dtype)]
        header[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(f"{name}.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def write_golden(name, shape, metadata):
    observations = rng.normal(size=(12, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(f"{name}.onnx")
    values = session.run(None, {"obs": observations})
    outputs = {output.name: value.tolist() for output, value in zip(session.get_outputs(), values)}
    rows = observations.reshape(12, -1).tolist()
    with open(f"golden_{name}.json", "w") as file:
        json.dump({"kind": "policy_golden", "onnx": f"{name}.onnx", "obs": rows, "outputs": outputs}, file)
    with open(f"{name}.json", "w") as file:
        json.dump({"kind": "policy", **metadata}, file, indent=1)


def network(name, sizes, activation, names, extra, head, metadata):
    layers = [linear(a, b) for a, b in zip(sizes, sizes[1:])]
    graph, tensors = Graph([sizes[0]]), dict(extra)
    for i, ((weight, bias), key) in enumerate(zip(layers, names)):
        last = i == len(layers) - 1
        graph.add("Gemm", weight, bias, transB=1, to="logits" if last and head == "logits" else None)
        tensors[f"{key}.weight"], tensors[f"{key}.bias"] = weight, bias
        if not last:
            graph.add(activation)
    out = sizes[-1]
    if head == "logits":
        graph.give([out]).add("ArgMax", axis=1, keepdims=0, to="action").give([], TensorProto.INT64)
    elif head == "q_values":
        graph.add("Identity", to="q_values").give([out])
        graph.add("ArgMax", axis=1, keepdims=0, to="action").give([], TensorProto.INT64)
    elif head == "quantiles":
        graph.add("Reshape", np.array([-1, out // 3, 3], np.int64), to="quantiles").give([out // 3, 3])
        graph.add("ReduceMean", axes=[1], keepdims=0, to="q_values").give([3])
        graph.add("ArgMax", axis=1, keepdims=0, to="action").give([], TensorProto.INT64)
    elif head == "clip":
        graph.add("Clip", np.float32(-0.5), np.float32(0.5), to="action").give([out])
    else:  # squashed, scaled to a range that differs between components
        if head == "sde":
            graph.add("Clip", np.float32(-2), np.float32(2))
        low, high = (np.array(metadata["action_space"][k], np.float32) for k in ("low", "high"))
        graph.add("Tanh").add("Add", np.float32(1)).add("Mul", np.float32(0.5) * (high - low))
        graph.add("Add", low, to="action").give([out])
    graph.write(name)
    write_safetensors(name, tensors)
    # What the tensors alone do not show.
    if "env" not in metadata:
        metadata = {"observation_space": {"kind": "box", "low": [None] * sizes[0], "high": [None] * sizes[0]}, **metadata}
        metadata.setdefault("action_space", {"kind": "discrete", "n": out})
    if len(layers) > 1 and "ops" not in metadata:
        metadata = {**metadata, "activation": activation.lower()}
    if name == "ars":
        metadata = {**metadata, "squash_output": True}
    write_golden(name, [sizes[0]], metadata)


def numbered(prefix, count):
    return [f"{prefix}.{2 * i}" for i in range(count)]


other = {"critic.qf0.0.weight": np.zeros((2, 2), np.float32), "critic.qf0.0.bias": np.zeros(2, np.float32)}
two = {"action_space": {"kind": "box", "low": [-2.0, 0.0], "high": [2.0, 0.25]}}
network("dqn", [6, 8, 8, 3], "Relu", numbered("q_net.q_net", 3), {}, "q_values", {"env": "Acrobot-v1"})
network("qrdqn", [6, 8, 8, 15], "Relu", numbered("quantile_net.quantile_net", 3), {}, "quantiles", {"env": "Acrobot-v1"})
network("td3", [3, 8, 8, 2], "Relu", numbered("actor.mu", 3), other, "squash", two)
sac = [*numbered("actor.latent_pi", 2), "actor.mu"]
network("sac", [3, 8, 8, 2], "Relu", sac, other, "squash", two)
sde = [*numbered("actor.latent_pi", 2), "actor.mu.0"]
network("sac_sde", [3, 8, 8, 2], "Relu", sde, {"actor.log_std": np.zeros((8, 2), np.float32)}, "sde", two)
ppo = [*numbered("mlp_extractor.policy_net", 2), "action_net"]
half = {"action_space": {"kind": "box", "low": [-0.5, -0.5], "high": [0.5, 0.5]}}
network("ppo_continuous", [3, 8, 8, 2], "Tanh", ppo, {"log_std": np.zeros(2, np.float32)}, "clip", half)
network("ppo_relu", [3, 8, 8, 4], "Relu", ppo, {}, "logits", {"ops": ["ArgMax", "Gemm", "Relu"]})
network("ppo_linear", [3, 4], "Tanh", ["action_net"], {}, "logits", {})
network("ars", [3, 8, 2], "Relu", numbered("action_net", 2), {}, "squash", two)
network("ars_linear", [3, 2], "Relu", ["action_net.0"], {}, "clip", half)

# A convolution over images, the preferences only.
image = Graph([1, 6, 6])
image.add("Conv", rng.normal(size=(2, 1, 3, 3)).astype(np.float32), strides=[2, 2]).add("Relu").add("Flatten")
image.add("Gemm", *linear(8, 3), transB=1, to="logits").give([3])
image.write("image")
write_golden("image", [1, 6, 6], {})

# What must be refused.
Graph([4]).add("RandomNormalLike", to="action").give([4]).write("bad_random")
Graph([4]).add("Expand", np.array([1, 1 << 20, 4], np.int64), to="action").give([1 << 20, 4]).write("bad_expand")
constants = Graph([4])
constants.nodes.append(helper.make_node("Add", [constants.constant(np.zeros((4096, 1), np.float32)),
                                                constants.constant(np.zeros((1, 4096), np.float32))], ["big"]))
constants.add("ReduceSum", to="s").at = "obs"
constants.add("Add", "big", to="action").give([4])
constants.write("bad_constants")
wide = Graph([4]).add("Unsqueeze", np.array([1], np.int64)).add("Add", np.zeros((1, 1 << 15, 1), np.float32))
wide.add("ReduceMean", axes=[1], keepdims=0, to="action").give([4]).write("bad_wide")
dangling = Graph([4]).add("Relu", to="action")
dangling.at = "absent"
dangling.give([4]).write("bad_dangling")
outside = Graph([4]).add("Add", np.zeros(4, np.float32), to="action").give([4]).model()
tensor = outside.graph.initializer[0]
tensor.data_location = TensorProto.EXTERNAL
tensor.external_data.add(key="location", value="make_models.py")
tensor.ClearField("raw_data")
with open("bad_outside.onnx", "wb") as file:
    file.write(outside.SerializeToString())
short = Graph([4]).add("Add", np.zeros(4, np.float32), to="action").give([4]).model()
short.graph.initializer[0].dims[0] = 1 << 40
with open("bad_short.onnx", "wb") as file:
    file.write(short.SerializeToString())
