"""Processor time of oto's server for a state, beside a server in Python (server.py) with the same model and the same load.

    python3 -m venv DIR && DIR/bin/pip install -r crates/oto-bench/peers/serving/requirements.txt
    DIR/bin/python crates/oto-bench/peers/serving/compare.py --oto target/release/oto

Both are first asked about the same states and must give the same actions. Then `oto load` puts the same load on each: at fixed
times, so that all answer as many states, and as much as each can answer. Servers run one after the other.
"""

import argparse
import asyncio
import json
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import urllib.request

import numpy as np
from websockets.asyncio.client import connect

HERE = pathlib.Path(__file__).parent
TEACHERS = HERE.parents[3] / "server" / "teachers"
HEADER = struct.Struct("<BBHIII")
TOLERANCE = 1e-5
OTO, PYTHON = 18431, 18432


def oto(options):
    return [options.oto, "serve", "--port", str(OTO)], OTO


def python(options, entry, *more):
    command = [sys.executable, HERE / "server.py", "--port", str(PYTHON), "--entry", entry]
    return [*command, "--model", TEACHERS / f"{options.policy}.onnx", *more], PYTHON


class Running:
    """A server that has said its first line."""

    def __init__(self, command, port):
        self.command, self.url = command, f"127.0.0.1:{port}"

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        if not self.process.stdout.readline():
            raise SystemExit(f"{self.command} did not start")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def entry(self, policy):
        with urllib.request.urlopen(f"http://{self.url}/policies") as answer:
            return next(entry for entry in json.load(answer) if entry["name"] == policy)

    async def ask(self, entry, states):
        hello = {
            "type": "hello", "protocol": "oto.v1", "policy": entry["name"], "student": "compare",
            "observation": entry["observation_space"], "action": entry["action_space"],
        }
        async with connect(f"ws://{self.url}/v1/teach", subprotocols=["oto.v1"], compression=None) as socket:
            await socket.send(json.dumps(hello))
            welcome = json.loads(await socket.recv())
            await socket.send(HEADER.pack(1, 1, len(states), 1, welcome["policy_id"], 0) + states.tobytes())
            return np.frombuffer(await socket.recv(), np.float32, offset=HEADER.size)

    def load(self, options, *load):
        """What `oto load` measures under a load."""
        with tempfile.NamedTemporaryFile() as file:
            command = [options.oto, "load", f"ws://{self.url}", "--policy", options.policy, "--json", file.name]
            command += ["--pid", str(self.process.pid), "--seconds", str(options.seconds), *load]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            measured = json.load(open(file.name))["server"]
        if measured["lost"] + measured["wrong"] + measured["closed"]:
            raise SystemExit(f"{command}: {measured}")
        return measured


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--oto", default="target/release/oto")
    parser.add_argument("--policy", default="sac_inverted_pendulum_v5", help="a bundled one")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.NamedTemporaryFile("w") as file:
        with Running(*oto(options)) as server:
            entry = server.entry(options.policy)
        json.dump(entry, file)
        file.flush()
        servers = {
            "oto": oto(options),
            "Python": python(options, file.name),
            "Python, joining": python(options, file.name, "--join"),
        }
        same_actions(servers, entry)
        for name, load in {
            "200 students, ten requests a second each": ["--students", "200", "--rate", "10"],
            "8 students, 8 requests each on their way": ["--students", "8", "--saturate", "8"],
        }.items():
            print(f"\n{name}\n{'states in a request':>20}", *(f"{server:>34}" for server in servers))
            for rows in [1, 8, 64]:
                table(options, servers, rows, load)


def same_actions(servers, entry):
    states = np.random.default_rng(1).uniform(-1, 1, (64, len(entry["observation_space"]["low"]))).astype(np.float32)
    answers = {}
    for name, server in servers.items():
        with Running(*server) as running:
            answers[name] = asyncio.run(running.ask(entry, states))
    for name, actions in answers.items():
        apart = np.abs(actions - answers["oto"]).max()
        if actions.shape != answers["oto"].shape or not apart <= TOLERANCE:
            raise SystemExit(f"{name} gives other actions than oto, {apart} apart")
    print(f"all give the same actions for {len(states)} states, within {TOLERANCE}")


def table(options, servers, rows, load):
    """A line: microseconds of the server's processor time for a state, of each run; how many states it answered in a second."""
    cells, least = [], {}
    for name, server in servers.items():
        times, speeds = [], []
        for _ in range(options.runs):
            with Running(*server) as running:
                measured = running.load(options, *load, "--rows", str(rows))
            times.append(1e6 * measured["server"]["processor_seconds"] / (measured["answered"] * rows))
            speeds.append(measured["states_per_second"])
        least[name] = statistics.median(times)
        ratio = "" if name == "oto" else f" ({least[name] / least['oto']:.1f}x)"
        spread = ", ".join(f"{time:.2f}" for time in times)
        cells.append(f"{spread} us{ratio}, {statistics.median(speeds):,.0f}/s")
    print(f"{rows:>20}", *(f"{cell:>34}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
