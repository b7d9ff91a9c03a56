"""A teacher server as one would write it in Python: websockets and onnxruntime on one uvloop, speaking oto.v1.

It knows what simulated students say (crates/oto-proto/PROTOCOL.md): `hello` without an adapter, states and actions as f32. It
checks the form of a frame and nothing of its numbers. Each request is run by itself, or, with `--join`, together with all
that came in the same turn of the event loop.
"""

import argparse
import asyncio
import json
import struct
from http import HTTPStatus

import numpy as np
import onnxruntime
import uvloop
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

HEADER = struct.Struct("<BBHIII")
STATES, ACTIONS, F32 = 1, 2, 1
MAX_ROWS, CREDITS = 1024, 64


class Policy:
    """The model and what is known of it: an entry of a server's list of policies."""

    def __init__(self, model, entry):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.run, self.input = session.run, session.get_inputs()[0].name
        self.entry = entry
        self.width = len(entry["observation_space"]["low"])

    def answer(self, observations):
        return self.run(["action"], {self.input: observations})[0]

    def welcome(self):
        action = self.entry["action_space"]
        return json.dumps({
            "type": "welcome",
            "policy": self.entry["name"],
            "policy_id": 0,
            "version": 1,
            "max_rows": MAX_ROWS,
            "credits": CREDITS,
            "dtype": "f32",
            "action_dtype": "f32",
            "action_width": len(action["low"]),
            "grants": ["actions"],
            "teacher": {"observation": self.entry["observation_space"], "action": action, "description": ""},
        })

    def states(self, frame):
        """The number of a request and its states."""
        kind, dtype, rows, request, _, _ = HEADER.unpack_from(frame)
        if (kind, dtype) != (STATES, F32) or len(frame) != HEADER.size + 4 * rows * self.width:
            raise ValueError("expected a frame of states")
        return request, np.frombuffer(frame, np.float32, offset=HEADER.size).reshape(rows, self.width)


def frame(request, actions):
    return HEADER.pack(ACTIONS, F32, len(actions), request, 0, 1) + actions.tobytes()


async def alone(policy, websocket):
    """Answers requests one by one."""
    async for message in websocket:
        request, states = policy.states(message)
        await websocket.send(frame(request, policy.answer(states)))


class Joined:
    """Answers together what came in one turn of the loop."""

    def __init__(self, policy):
        self.policy, self.waiting = policy, []

    async def teach(self, websocket):
        async with asyncio.TaskGroup() as group:
            async for message in websocket:
                request, states = self.policy.states(message)
                if not self.waiting:
                    asyncio.get_running_loop().call_soon(self.flush)
                self.waiting.append((request, states, websocket, group))

    def flush(self):
        waiting, self.waiting = self.waiting, []
        actions = self.policy.answer(np.concatenate([states for _, states, _, _ in waiting]))
        at = 0
        for request, states, websocket, group in waiting:
            group.create_task(websocket.send(frame(request, actions[at:at + len(states)])))
            at += len(states)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--entry", required=True, help="JSON of the policy, as a server lists it")
    parser.add_argument("--join", action="store_true", help="run together what comes together")
    options = parser.parse_args()
    with open(options.entry) as file:
        policy = Policy(options.model, json.load(file))
    teach = Joined(policy).teach if options.join else lambda websocket: alone(policy, websocket)

    def process_request(connection, request):
        if request.path == "/policies":
            response = connection.respond(HTTPStatus.OK, json.dumps([policy.entry]))
            response.headers["content-type"] = "application/json"
            return response
        return None

    async def handle(websocket):
        hello = json.loads(await websocket.recv())
        if hello["type"] == "hello" and hello["policy"] == policy.entry["name"]:
            await websocket.send(policy.welcome())
            try:
                await teach(websocket)
            except* ConnectionClosed:
                pass

    async with serve(
        handle, "127.0.0.1", options.port, subprotocols=["oto.v1"], compression=None, process_request=process_request,
        ping_interval=None, max_queue=None,
    ):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(main())
