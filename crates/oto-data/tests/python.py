"""Loads datasets that oto wrote with Minari, and prints what it sees; collects one with Minari for oto to read."""

import json
import os
import sys

import gymnasium
import minari
import numpy as np
from minari.data_collector.episode_buffer import EpisodeBuffer

root = os.environ["MINARI_DATASETS_PATH"]
for dataset_id in sys.argv[2:]:
    dataset = minari.load_dataset(dataset_id)
    assert dataset.id == dataset_id
    dataset.set_seed(1)
    sampled = dataset.sample_episodes(min(2, dataset.total_episodes))
    assert all(len(episode.observations) == len(episode.rewards) + 1 for episode in sampled)
    episodes = []
    for episode, metadata in zip(dataset.iterate_episodes(), dataset.storage.get_episode_metadata(dataset.episode_indices)):
        assert episode.terminations.dtype == np.bool_ and episode.truncations.dtype == np.bool_
        assert metadata["total_steps"] == len(episode.rewards) and metadata["id"] == episode.id
        assert all(action in dataset.action_space for action in episode.actions)
        episodes.append({
            "observations": np.asarray(episode.observations, np.float64).ravel().tolist(),
            "actions": np.asarray(episode.actions, np.float64).ravel().tolist(),
            "rewards": episode.rewards.tolist(),
            "terminated": episode.terminations.tolist(),
            "truncated": episode.truncations.tolist(),
            "seed": metadata.get("seed"),
        })
    environment = dataset.env_spec and dataset.env_spec.id
    if environment in gymnasium.registry and environment.startswith("CartPole"):
        assert dataset.recover_environment().action_space == dataset.action_space
    print(json.dumps({
        "id": dataset_id,
        "environment": environment,
        "steps": int(dataset.total_steps),
        "observation": list(dataset.observation_space.shape),
        "episodes": episodes,
    }))

rng = np.random.default_rng(0)
buffers = []
for number, steps in enumerate([1, 40, 2000]):
    buffers.append(EpisodeBuffer(
        id=number,
        seed=number,
        observations=list(rng.normal(size=(steps + 1, 2, 3)).astype(np.float32)),
        actions=list(rng.integers(-1, 2, size=steps)),
        rewards=list(rng.normal(size=steps)),
        terminations=[False] * steps,
        truncations=[step + 1 == steps for step in range(steps)],
    ))
for data_format in ["hdf5", "parquet"]:
    minari.create_dataset_from_buffers(
        f"{sys.argv[1]}-{data_format}-v0",
        buffers,
        observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (2, 3), np.float32),
        action_space=gymnasium.spaces.Discrete(3, start=-1),
        data_format=data_format,
    )
parts = gymnasium.spaces.Dict({
    "z": gymnasium.spaces.Box(-np.inf, np.inf, (2, 3), np.float32),
    "a": gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3), gymnasium.spaces.Box(-9, 9, (2,), np.float64)]),
    "one": gymnasium.spaces.Dict({"flag": gymnasium.spaces.MultiBinary(2), "x/y": gymnasium.spaces.Box(-9, 9, (1,), np.float32)}),
})
acts = gymnasium.spaces.Tuple([gymnasium.spaces.Box(-1, 1, (2,), np.float32), gymnasium.spaces.Box(-1, 1, (1,), np.float32)])


def columns(space, elements):
    """The elements part by part, as a buffer keeps them."""
    if isinstance(space, gymnasium.spaces.Dict):
        return {name: columns(part, [element[name] for element in elements]) for name, part in space.spaces.items()}
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(columns(part, [element[i] for element in elements]) for i, part in enumerate(space.spaces))
    return list(elements)


parts.seed(3)
acts.seed(4)
mixed = []
for number, steps in enumerate([1, 30]):
    mixed.append(EpisodeBuffer(
        id=number,
        seed=number,
        observations=columns(parts, [parts.sample() for _ in range(steps + 1)]),
        actions=columns(acts, [acts.sample() for _ in range(steps)]),
        rewards=[1.0] * steps,
        terminations=[step + 1 == steps for step in range(steps)],
        truncations=[False] * steps,
    ))
for data_format in ["hdf5", "parquet"]:
    minari.create_dataset_from_buffers(
        f"{sys.argv[1]}-parts-{data_format}-v0", mixed, observation_space=parts, action_space=acts, data_format=data_format,
    )
print(json.dumps([[float(np.sum(b.rewards)), float(np.sum(b.actions))] for b in buffers]))
