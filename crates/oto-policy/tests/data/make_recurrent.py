"""Makes recurrent_*.zip and golden_recurrent_*.json: small RecurrentPPO models of sb3-contrib, and what `predict` answers over episodes.

Needs sb3-contrib 2.9 and gymnasium.
"""

import json
import os
import zipfile

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib import RecurrentPPO
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
def make(name, env, kwargs, steps=64):
    m = RecurrentPPO("MlpLstmPolicy", env, n_steps=32, batch_size=32, n_epochs=2, seed=3, device="cpu", policy_kwargs=kwargs)
    m.learn(64)
    with torch.no_grad():
        for n, p in m.policy.named_parameters():
            if n.startswith(("action_net", "lstm_actor")): p.mul_(3.0)
            if n.startswith("lstm_actor.weight_ih_l0"): p.mul_(4.0)
            if n == "action_net.bias": p.zero_()
    m.save(OUT + name + ".zip", exclude=["policy.optimizer", "_last_obs", "_last_lstm_states", "rollout_buffer", "ep_info_buffer"])
    e = gym.make(env); obs, _ = e.reset(seed=7); state, start = None, np.ones((1,), bool)
    rows, acts, starts = [], [], []
    for _ in range(steps):
        a, state = m.predict(obs, state=state, episode_start=start, deterministic=True)
        rows.append(obs.astype(float).tolist()); acts.append(np.asarray(a, float).reshape(-1).tolist()); starts.append(bool(start[0]))
        obs, _, term, trunc, _ = e.step(a)
        start = np.array([term or trunc or len(rows) == 30])
        if start[0]: obs, _ = e.reset()
    json.dump({"kind": "recurrent_policy", "observations": rows, "actions": acts, "episode_starts": starts}, open(OUT + "golden_" + name + ".json", "w"))
    print(name, len(set(map(str, acts))), sum(starts), [n for n,_ in m.policy.named_parameters()])
small = dict(net_arch=[8], lstm_hidden_size=8)
make("recurrent_discrete", "CartPole-v1", small)
make("recurrent_shared", "Pendulum-v1", dict(shared_lstm=True, enable_critic_lstm=False, **small))
make("recurrent_two_layers", "Acrobot-v1", dict(n_lstm_layers=2, enable_critic_lstm=False, activation_fn=torch.nn.ReLU, **small))

for name in ["recurrent_shared", "recurrent_two_layers", "recurrent_discrete"]:
    z = zipfile.ZipFile(OUT + name + ".zip"); items = [(i, z.read(i)) for i in z.namelist() if i != "policy.optimizer.pth"]; z.close()
    with zipfile.ZipFile(OUT + name + ".zip", "w", zipfile.ZIP_DEFLATED) as w:
        for i, b in items: w.writestr(i, b)
