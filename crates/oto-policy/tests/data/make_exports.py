"""Makes the models beside this file that are as PyTorch's two exporters write policies of Stable-Baselines3, whole calls of the policy
included; weights are random. Needs torch 2.15, stable-baselines3 2.9, onnxscript, onnx and onnxruntime: python make_exports.py
"""

import json

import gymnasium
import numpy as np
import onnx
import onnxruntime
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, SAC

rng = np.random.default_rng(11)


class World(gymnasium.Env):
    """Nothing happens in it."""

    def __init__(self, actions):
        self.observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = actions


class Call(torch.nn.Module):
    """What `predict` of Stable-Baselines3 calls, as its documentation exports it."""

    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def forward(self, obs):
        return self.policy(obs, deterministic=True)


class Choice(torch.nn.Module):
    """A network beside the choice it makes."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, obs):
        logits = self.network(obs)
        return logits, logits.argmax(1)


def export(name, module, outputs, metadata, new):
    batch = torch.export.Dim("batch")
    how = {"dynamo": True, "dynamic_shapes": ({0: batch},), "external_data": False, "verbose": False} if new else {
        "dynamo": False,
        "dynamic_axes": {key: {0: "batch"} for key in ["obs", *outputs]},
    }
    torch.onnx.export(
        module.eval(), (torch.zeros(2, 4),), f"{name}.onnx", input_names=["obs"], output_names=outputs,
        opset_version=18 if new else 17, **how,
    )
    model = onnx.load(f"{name}.onnx")
    for node in model.graph.node:
        # Stack traces, with the paths of the machine.
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    onnx.save(model, f"{name}.onnx")
    observations = rng.normal(size=(12, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(f"{name}.onnx")
    values = session.run(None, {"obs": observations})
    kept = {key: value.tolist() for key, value in zip(outputs, values) if key in ("action", "logits")}
    with open(f"golden_{name}.json", "w") as file:
        golden = {"kind": "policy_golden", "onnx": f"{name}.onnx", "obs": observations.tolist(), "outputs": kept}
        json.dump(golden, file)
    with open(f"{name}.json", "w") as file:
        json.dump({"kind": "policy", **metadata}, file, indent=1)


torch.manual_seed(1)
net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.GELU(), torch.nn.Linear(6, 3))
export("exported_anew", Choice(net), ["logits", "action"], {}, new=True)
small = {"device": "cpu", "seed": 1, "policy_kwargs": {"net_arch": [6]}}
ppo = PPO("MlpPolicy", World(spaces.Discrete(3)), n_steps=8, batch_size=8, **small)
choice = {"action_space": {"kind": "discrete", "n": 3}}
export("exported_ppo", Call(ppo.policy), ["action", "value", "log_prob"], choice, new=False)
sac = SAC("MlpPolicy", World(spaces.Box(-1, 1, (2,))), buffer_size=10, **small)
one = {"action_space": {"kind": "box", "low": [-1, -1], "high": [1, 1]}}
export("exported_sac", Call(sac.policy.actor), ["action"], one, new=False)
