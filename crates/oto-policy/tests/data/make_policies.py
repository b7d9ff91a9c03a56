"""Makes sb3.zip beside this file: policies of Stable-Baselines3 and sb3-contrib as `model.save`, `policy.save` and `torch.save` write
them, with what `predict` answers; weights are random. Needs torch 2.15, stable-baselines3 2.9, sb3-contrib 2.9: python make_policies.py
"""

import io
import json
import os
import tempfile
import warnings
import zipfile

warnings.filterwarnings("ignore")

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

rng = np.random.default_rng(3)


class Still(gymnasium.Env):
    """Nothing happens in it."""

    def __init__(self, observed, done):
        self.observation_space, self.action_space = observed, done

    def reset(self, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, True, {}


class Doubling(BaseFeaturesExtractor):
    """It has no parameters, and changes what the network sees."""

    def __init__(self, observed):
        super().__init__(observed, 4)

    def forward(self, observations):
        return 2 * observations


LINES = spaces.Box(-np.inf, np.inf, (4,), np.float32)
THREE = spaces.Discrete(3)
TORQUES = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 0.25], np.float32))
# Packed as one: the files are much alike.
packed = io.BytesIO()
archive = zipfile.ZipFile(packed, "w")
cases = []


def put(path, data):
    archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), data)


def declared(space):
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n)}
    bounds = [[float(x) if np.isfinite(x) else None for x in bound] for bound in (space.low, space.high)]
    return {"kind": "box", "low": bounds[0], "high": bounds[1]}


def add(path, metadata, observations, actions, refusal=None):
    put(f"{path}/p.json", json.dumps({"kind": "policy", **metadata}))
    cases.append({"path": path, "observations": observations, "actions": actions, "refusal": refusal})


def case(name, algorithm, observed, done, refusal=None, policy="MlpPolicy", declare=None, **arguments):
    """`refusal`: a word of it. `declare`: what the metadata of the tensors alone say of the activation, if that is enough."""
    torch.manual_seed(len(cases))
    arguments.setdefault("policy_kwargs", {}).setdefault("net_arch", [4, 3])
    if policy == "LinearPolicy":
        arguments["policy_kwargs"] = {}
    model = algorithm(policy, Still(observed, done), seed=1, device="cpu", **arguments)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    observed.seed(len(cases))
    states = [observed.sample() for _ in range(12)]
    states = [3 * state if observed is LINES else state for state in states]
    actions = [np.asarray(model.predict(state, deterministic=True)[0]).tolist() for state in states]
    if isinstance(observed, spaces.Discrete):
        rows = [[float(state)] for state in states]
    else:
        rows = [spaces.flatten(observed, state).astype(float).tolist() for state in states]
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.zip")
        model.policy.save(f"{folder}/saved.pth")
        buffers = {"p.zip": f"{folder}/model.zip", "p.pth": f"{folder}/saved.pth"}
        for file, path in buffers.items():
            add(f"{name}/{file[2:]}", {}, rows, actions, refusal)
            put(f"{name}/{file[2:]}/{file}", strip(open(path, "rb").read()))
    bare = io.BytesIO()
    torch.save(model.policy.state_dict(), bare)
    add(f"{name}/bare", {}, rows, actions, refusal or ("declare" if refusal is None else refusal))
    put(f"{name}/bare/p.pth", bare.getvalue())
    if declare is not None:
        metadata = {"observation_space": declared(observed), "action_space": declared(done), **declare}
        add(f"{name}/declared", metadata, rows, actions)
        put(f"{name}/declared/p.pth", bare.getvalue())


def strip(data):
    """Without the optimiser, which no policy needs."""
    source, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    if "policy.pth" not in source.namelist():
        return data
    with zipfile.ZipFile(out, "w") as target:
        for name in ("data", "policy.pth"):
            target.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), source.read(name))
    return out.getvalue()


nn, few, short = torch.nn, {"buffer_size": 10}, {"n_steps": 8, "batch_size": 8}
tanh, relu = {"activation": "tanh"}, {"activation": "relu"}
case("ppo", PPO, LINES, THREE, declare=tanh, **short)
case("ppo_relu", PPO, LINES, THREE, declare=relu, policy_kwargs={"activation_fn": nn.ReLU}, **short)
for activation in ("ELU", "LeakyReLU", "GELU", "SiLU"):
    case(f"ppo_{activation.lower()}", PPO, LINES, THREE, policy_kwargs={"activation_fn": getattr(nn, activation)}, refusal="activation", **short)
case("ppo_box", PPO, LINES, TORQUES, declare=tanh, **short)
case("ppo_sde", PPO, LINES, TORQUES, use_sde=True, declare=tanh, **short)
case("ppo_squashed", PPO, LINES, TORQUES, use_sde=True, policy_kwargs={"squash_output": True}, refusal="", **short)
case("ppo_apart", PPO, LINES, THREE, policy_kwargs={"net_arch": {"pi": [7, 4], "vf": [3]}}, declare=tanh, **short)
case("ppo_linear", PPO, LINES, THREE, policy_kwargs={"net_arch": []}, declare={}, **short)
case("sees_discrete", PPO, spaces.Discrete(6), THREE, declare=tanh, **short)
case("sees_parts", PPO, spaces.MultiDiscrete([3, 2]), THREE, **short)
case("sees_bits", PPO, spaces.MultiBinary(5), THREE, **short)
case("sees_rows_of_bits", PPO, spaces.MultiBinary([2, 3]), THREE, **short)
mixed = spaces.Dict({"b": LINES, "a": spaces.Discrete(3), "c": spaces.MultiBinary(2)})
case("sees_dict", PPO, mixed, THREE, policy="MultiInputPolicy", **short)
case("sees_grid", PPO, spaces.Box(-1, 1, (2, 3), np.float32), THREE, **short)
case("sees_bytes", PPO, spaces.Box(0, 255, (6,), np.uint8), THREE, **short)
wide = np.arange(1, 1052, dtype=np.float32)
case("sees_much", PPO, spaces.Box(-wide, wide), THREE, policy_kwargs={"net_arch": [2]}, **short)
case("sees_images", PPO, spaces.Box(0, 255, (1, 8, 8), np.uint8), THREE, refusal="", **short)
case("does_parts", PPO, LINES, spaces.MultiDiscrete([3, 2]), refusal="", **short)
case("does_bits", PPO, LINES, spaces.MultiBinary(3), refusal="", **short)
case("extracts", PPO, LINES, THREE, policy_kwargs={"features_extractor_class": Doubling}, refusal="", **short)
case("a2c", A2C, LINES, THREE, declare=tanh)
case("trpo", TRPO, LINES, TORQUES, declare=tanh, **short)
case("maskable", MaskablePPO, LINES, THREE, declare=tanh, **short)
case("recurrent", RecurrentPPO, LINES, THREE, policy="MlpLstmPolicy", policy_kwargs={"lstm_hidden_size": 4}, declare=tanh, **short)
case("dqn", DQN, LINES, THREE, declare=relu, **few)
case("dqn_tanh", DQN, LINES, THREE, policy_kwargs={"activation_fn": nn.Tanh, "net_arch": [5]}, declare=tanh, **few)
case("qrdqn", QRDQN, LINES, THREE, policy_kwargs={"n_quantiles": 7}, declare=relu, **few)
case("sac", SAC, LINES, TORQUES, declare=relu, **few)
case("sac_sde", SAC, LINES, TORQUES, use_sde=True, declare=relu, **few)
case("sac_sde_clip", SAC, LINES, TORQUES, use_sde=True, policy_kwargs={"clip_mean": 0.5}, **few)
case("sac_sde_free", SAC, LINES, TORQUES, use_sde=True, policy_kwargs={"clip_mean": 0.0}, **few)
case("sac_tanh", SAC, LINES, TORQUES, policy_kwargs={"activation_fn": nn.Tanh, "net_arch": {"pi": [7], "qf": [3]}}, declare=tanh, **few)
case("sac_linear", SAC, LINES, TORQUES, policy_kwargs={"net_arch": {"pi": [], "qf": [3]}}, **few)
case("tqc", TQC, LINES, TORQUES, declare=relu, **few)
case("td3", TD3, LINES, TORQUES, declare=relu, **few)
case("ddpg", DDPG, LINES, TORQUES, declare=relu, **few)
case("crossq", CrossQ, LINES, TORQUES, refusal="", **few)
case("ars", ARS, LINES, THREE, declare=relu)
case("ars_linear", ARS, LINES, TORQUES, policy="LinearPolicy", declare={})

# What `policy.save` keeps does not say this.
torch.manual_seed(5)
loose = ARS("MlpPolicy", Still(LINES, TORQUES), seed=1, device="cpu", policy_kwargs={"net_arch": [5], "squash_output": False})
with torch.no_grad():
    for parameter in loose.policy.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
states = rng.normal(size=(12, 4)).astype(np.float32)
rows, actions = states.astype(float).tolist(), loose.predict(states, deterministic=True)[0].tolist()
with tempfile.TemporaryDirectory() as folder:
    loose.save(f"{folder}/p.zip")
    loose.policy.save(f"{folder}/p.pth")
    add("ars_loose/zip", {}, rows, actions)
    put("ars_loose/zip/p.zip", strip(open(f"{folder}/p.zip", "rb").read()))
    add("ars_loose/pth", {}, rows, actions, "squash_output")
    put("ars_loose/pth/p.pth", open(f"{folder}/p.pth", "rb").read())

# A model that was trained behind VecNormalize, and its statistics.
bounded = spaces.Box(np.array([-1, -2, 0, -4], np.float32), np.array([1, 2, 8, 4], np.float32))
normal = VecNormalize(DummyVecEnv([lambda: Still(bounded, TORQUES)]), clip_obs=2.0)
normal.obs_rms.update(rng.normal(2, 3, (50, 4)))
normal.training = False
model = PPO("MlpPolicy", normal, seed=1, device="cpu", policy_kwargs={"net_arch": [6]}, **short)
states = (4 * rng.normal(size=(12, 4))).astype(np.float32)
rows, actions = states.astype(float).tolist(), model.predict(normal.normalize_obs(states), deterministic=True)[0].tolist()
plain = model.predict(states, deterministic=True)[0].tolist()
with tempfile.TemporaryDirectory() as folder:
    model.save(f"{folder}/p.zip")
    normal.save(f"{folder}/vecnormalize.pkl")
    normal.norm_obs = False
    normal.save(f"{folder}/off.pkl")
    files = {name: open(f"{folder}/{name}", "rb").read() for name in os.listdir(folder)}
for name, metadata, refusal, answers, statistics in [
    ("read", {"normalize": "vecnormalize.pkl"}, None, actions, "vecnormalize.pkl"),
    ("told", {}, "vecnormalize.pkl", actions, "vecnormalize.pkl"),
    ("denied", {"normalize": False}, None, plain, "vecnormalize.pkl"),
    ("off", {"normalize": "off.pkl"}, None, plain, "off.pkl"),
    ("absent", {"normalize": "nowhere.pkl"}, "nowhere.pkl", actions, "off.pkl"),
    ("outside", {"normalize": "../off.pkl"}, "beside it", actions, "off.pkl"),
]:
    add(f"normalized/{name}", metadata, rows, answers, refusal)
    put(f"normalized/{name}/p.zip", strip(files["p.zip"]))
    put(f"normalized/{name}/{statistics}", files[statistics])

# Other things that torch.save is given.
torch.manual_seed(9)
ppo = PPO("MlpPolicy", Still(LINES, THREE), seed=1, device="cpu", policy_kwargs={"net_arch": [6]}, **short)
states = (3 * rng.normal(size=(12, 4))).astype(np.float32)
rows, actions = states.astype(float).tolist(), ppo.predict(states, deterministic=True)[0].tolist()
known = {"observation_space": declared(LINES), "action_space": declared(THREE), "activation": "tanh"}
state = ppo.policy.state_dict()
for name, saved, refusal, how in [
    ("checkpoint", {"model_state_dict": state, "optimizer_state_dict": ppo.policy.optimizer.state_dict(), "epoch": 3}, None, {}),
    ("nested", {"policy": state, "steps": 5}, None, {}),
    ("two", {"actor": state, "critic": state}, "several", {}),
    ("protocol4", state, None, {"pickle_protocol": 4}),
    ("protocol5", state, None, {"pickle_protocol": 5}),
    ("views", {key: torch.stack([value, value], -1)[..., 0] for key, value in state.items()}, None, {}),
    ("doubles", {key: value.double() for key, value in state.items()}, None, {}),
    ("halves", {key: value.half() for key, value in state.items()}, "Half", {}),
    ("left_over", {**state, "adjustment": torch.ones(3)}, "adjustment", {}),
    ("optimizer", ppo.policy.optimizer.state_dict(), "state_dict", {}),
    ("number", 3, "dictionary", {}),
    ("parameters", {key: nn.Parameter(value) for key, value in state.items()}, None, {}),
]:
    buffer = io.BytesIO()
    torch.save(saved, buffer, **how)
    add(f"saved/{name}", known, rows, actions, refusal)
    put(f"saved/{name}/p.pth", buffer.getvalue())
buffer = io.BytesIO()
torch.save(nn.Sequential(nn.Linear(4, 3)), buffer)
add("saved/module", known, rows, actions, "state_dict()")
put("saved/module/p.pth", buffer.getvalue())

put("cases.json", json.dumps(cases))
archive.close()
with zipfile.ZipFile("sb3.zip", "w") as outer:
    inner = zipfile.ZipInfo("cases.zip", (1980, 1, 1, 0, 0, 0))
    outer.writestr(inner, packed.getvalue(), zipfile.ZIP_DEFLATED, 9)
print(len(cases), "cases")
