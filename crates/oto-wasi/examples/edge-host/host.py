"""The same host in Python, on the package wasmtime (50.0.1 when this was written).

    pip install wasmtime
    python crates/oto-wasi/examples/edge-host/host.py target/edge/oto_edge.wasm

This package grants no sockets to a component: the student learns alone. Where the cases of a variant have distinct types in
Python, the package takes and gives the payload alone: here for spaces, actions and results.
"""

import json
import sys

from wasmtime import Config, Engine, Store, WasiConfig
from wasmtime.component import Component, Linker, Record, Variant


def record(**fields):
    made = Record()
    made.__dict__.update(fields)
    return made


class Corridor:
    """Nine places in a row, a prize in the last one."""

    def __init__(self):
        self.place, self.steps = 0, 0

    def observation_space(self, store):
        return record(low=[0.0], high=[1.0])

    def action_space(self, store):
        return 2  # back, ahead

    def reset(self, store, seed):
        self.place, self.steps = 0, 0
        return [0.0]  # an error is its text

    def step(self, store, action):
        self.place = max(0, self.place + (1 if action == 1 else -1))
        self.steps += 1
        done = self.place == 8
        transition = {
            "observation": [self.place / 8],
            "reward": 1.0 if done else -0.01,
            "terminated": done,
            "truncated": self.steps == 40,
        }
        return record(**transition)


def main(path):
    engine = Engine(Config())
    store = Store(engine)
    store.set_wasi(WasiConfig())
    corridor = Corridor()
    linker = Linker(engine)
    linker.add_wasip2()
    with linker.root() as root, root.add_instance("oto:edge/environment@0.1.0") as environment:
        for name in ["observation-space", "action-space", "reset", "step"]:
            environment.add_func(name, getattr(corridor, name.replace("-", "_")))
    component = Component.from_file(engine, path)
    instance = linker.instantiate(store, component)
    learner = instance.get_export_index(store, "oto:edge/learner@0.1.0")

    def call(name, *arguments):
        function = instance.get_func(store, instance.get_export_index(store, name, learner))
        answer = function(store, *arguments)
        function.post_return(store)
        if isinstance(answer, Variant):  # the world's error
            raise RuntimeError(f"{name}: {answer.tag}: {answer.payload}")
        return answer

    # A random walk seldom gets to the prize, hence the long exploration.
    epsilon = {"start": 1, "end": 0.05, "steps": 2000}
    student = {"seed": 1, "steps": 4000, "algorithm": {"hidden": [32]}, "epsilon": epsilon}
    call("create", json.dumps({"student": student}))
    for _ in range(4):
        progress = call("train", 1000)
        print(f"{progress.step} steps, last return {getattr(progress, 'last-return')}")
    print([call("act", [place / 8]) for place in range(8)])


main(sys.argv[1] if len(sys.argv) > 1 else "target/edge/oto_edge.wasm")
