"""Environments as people write them, each with a peculiarity that a bridge has to take or to name: peculiar:NAME-v0."""

import ctypes
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import gymnasium
import numpy as np
from gymnasium import spaces

LOG = os.environ.get("PECULIAR_LOG", os.devnull)


def log(line):
    with open(LOG, "a") as file:
        file.write(f"{line}\n")


class Walk(gymnasium.Env):
    """From 0 to 1 in quarters; action 1 is forward."""

    observation_space = spaces.Box(-10, 10, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = 0.0, 0
        return self.seen(), {}

    def seen(self):
        return np.array([self.x, self.t / 20], np.float32)

    def step(self, action):
        self.x += 0.25 if action else -0.25
        self.t += 1
        return self.seen(), float(self.x >= 1), self.x >= 1, False, {}


class RewardArray(Walk):
    def step(self, action):
        o, r, terminated, truncated, info = super().step(action)
        return o, np.array([r], np.float32), np.bool_(terminated), np.array([truncated]), info


class RewardText(Walk):
    def step(self, action):
        return self.seen(), "much", False, False, {}


class RewardNone(Walk):
    def step(self, action):
        return self.seen(), None, False, False, {}


class RewardNan(Walk):
    def step(self, action):
        return self.seen(), float("nan"), False, False, {}


class Lists(Walk):
    def seen(self):
        return [self.x, self.t / 20]


class Ragged(Walk):
    def seen(self):
        return [[self.x], [self.t, 1]]


class Shape(Walk):
    def seen(self):
        return np.zeros(3, np.float32)


class Text(Walk):
    def seen(self):
        return "here"


class Integers(Walk):
    observation_space = spaces.Box(-100, 100, (2,), np.int64)

    def seen(self):
        return np.array([4 * self.x, self.t], np.int64)


class Half(Walk):
    observation_space = spaces.Box(-10, 10, (2,), np.float16)

    def seen(self):
        return np.array([self.x, self.t / 20], np.float16)


class Flags(Walk):
    observation_space = spaces.Box(0, 1, (2,), np.bool_)

    def seen(self):
        return np.array([self.x > 0, self.t > 3])


class Scalar(Walk):
    observation_space = spaces.Box(-10, 10, (), np.float32)

    def seen(self):
        return self.x


class Outside(Walk):
    observation_space = spaces.Box(-0.1, 0.1, (2,), np.float32)


class Wide(Walk):
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def seen(self):
        return np.array([self.x, 1e300 if self.t > 2 else 0.0])


class Nan(Walk):
    def seen(self):
        return np.array([self.x, np.nan if self.t > 2 else 0.0], np.float32)


class OldReset(Walk):
    def reset(self, **_):
        super().reset()
        return self.seen()


class OldStep(Walk):
    def step(self, action):
        o, r, terminated, _, info = super().step(action)
        return o, r, terminated, info


class NoSeed(Walk):
    def reset(self):
        return super().reset()


class IgnoresSeed(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset()


class Seeds(Walk):
    """Takes a C int and NumPy's older generator."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            np.random.seed(seed)
            if seed != ctypes.c_int32(seed).value:
                raise OverflowError(f"{seed} is no C int")
            log(seed)
        return super().reset(seed=seed)


class Raises(Walk):
    resets = 0

    def reset(self, **options):
        type(self).resets += 1
        if type(self).resets == 2:
            self.break_down()
        return super().reset(**options)

    def break_down(self):
        raise RuntimeError("the simulator crashed")


class RaisesAtOnce(Walk):
    def __init__(self):
        raise OSError("no licence")


class Imports(Walk):
    def __init__(self):
        import a_module_that_is_not_there  # noqa: F401


class Exit(Walk):
    def step(self, action):
        if self.t == 2:
            sys.exit(3)
        return super().step(action)


class HardExit(Walk):
    def step(self, action):
        os._exit(4)


class Loud(Walk):
    def step(self, action):
        print("x" * 200_000)
        os.write(1, b"bytes of the simulator\n" * 500)
        sys.stderr.write("e" * 100_000)
        return super().step(action)


class Child(Walk):
    """Starts a program that reads its standard input."""

    def __init__(self):
        self.child = subprocess.Popen(["cat"], stdout=subprocess.DEVNULL)

    def step(self, action):
        subprocess.run(["sh", "-c", "head -c 1 > /dev/null"], check=True)
        return super().step(action)


class Input(Walk):
    def __init__(self):
        try:
            input("press enter")
        except EOFError:
            log("end of input")


def worker(queue):
    print("a child speaks")
    queue.put(7)


class Spawn(Walk):
    method = "spawn"

    def __init__(self):
        context = multiprocessing.get_context(self.method)
        queue = context.Queue()
        child = context.Process(target=worker, args=(queue,))
        child.start()
        assert queue.get(timeout=60) == 7
        child.join()


class Fork(Spawn):
    method = "fork"


class Lasting(Walk):
    """A thread that is no daemon and does not end."""

    def __init__(self):
        threading.Thread(target=lambda: [time.sleep(0.1) for _ in range(10**9)]).start()


class Simulator(Walk):
    """Starts a program and stops it in close()."""

    def __init__(self):
        self.child = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
        log(f"opened {self.child.pid}")

    def step(self, action):
        if os.environ.get("PECULIAR_HANG"):
            time.sleep(1000)
        return super().step(action)

    def close(self):
        self.child.terminate()
        self.child.wait()
        log(f"closed {self.child.pid}")


class Slow(Walk):
    def __init__(self):
        time.sleep(1.5)


class Whole(Walk):
    action_space = spaces.Box(0, 3, (1,), np.int32)

    def step(self, action):
        assert action.dtype == np.int32 and self.action_space.contains(action), action
        log(action[0])
        return super().step(True)


class Double(Walk):
    action_space = spaces.Box(-0.1, 0.1, (1,), np.float64)

    def step(self, action):
        assert self.action_space.contains(action), (action, action.dtype)
        return super().step(True)


class Square(Walk):
    action_space = spaces.Box(-1, 1, (2, 2), np.float32)

    def step(self, action):
        assert action.shape == (2, 2) and self.action_space.contains(action)
        action += 0
        return super().step(True)


class Start(Walk):
    action_space = spaces.Discrete(2, start=5)

    def step(self, action):
        assert self.action_space.contains(action), action
        return super().step(action == 6)


class Switches(Walk):
    action_space = spaces.Dict(
        lever=spaces.MultiDiscrete([2, 3], start=[0, 5]), lamps=spaces.MultiBinary((2, 1)), pair=spaces.Tuple([spaces.Discrete(2)])
    )

    def step(self, action):
        assert self.action_space.contains(action), action
        log([action["lamps"].ravel().tolist(), action["lever"].tolist(), action["pair"][0]])
        return super().step(True)


class Choices(Walk):
    observation_space = spaces.Discrete(12, start=-3)

    def seen(self):
        return np.int64(self.t % 12 - 3)


class Parts(Walk):
    observation_space = spaces.Dict({
        "z": spaces.Tuple([spaces.MultiBinary(2), spaces.Discrete(3)]),
        "a": spaces.MultiDiscrete(np.array([[2, 3]])),
        "text": spaces.Text(max_length=2, charset="ab"),
    })

    def seen(self):
        return {"a": np.array([[1, 2]]), "text": "b", "z": (np.array([1, 0], np.int8), 2)}


class PartMissing(Parts):
    def seen(self):
        return {"a": np.array([[1, 2]])}


class Endless(Walk):
    observation_space = spaces.Sequence(spaces.Discrete(3))


class Colours(Walk):
    """Channels last, as cameras have them."""

    observation_space = spaces.Box(0, 255, (4, 5, 3), np.uint8)

    def seen(self):
        return np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


class Unit(Colours):
    observation_space = spaces.Box(0, 1, (4, 5, 3), np.float32)

    def seen(self):
        return (np.arange(60).reshape(4, 5, 3) / 64).astype(np.float32)


class Stacked(Colours):
    observation_space = spaces.Box(0, 255, (2, 4, 5, 3), np.uint8)

    def seen(self):
        return np.arange(120, dtype=np.uint8).reshape(2, 4, 5, 3)


class Memory(Colours):
    observation_space = spaces.Box(0, 255, (6,), np.uint8)

    def seen(self):
        return [0, 1, 2, 3, 4, 255]


class NoBytes(Memory):
    def seen(self):
        return [0, 1, 2, 3, 4, -1]


class RewardHuge(Walk):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return (observation, 10**400, *rest)


class RewardEndless(Walk):
    """Python makes no text of so many digits."""

    def step(self, action):
        observation, _, *rest = super().step(action)
        return (observation, 10**5000, *rest)


class CheckedRewardHuge(RewardHuge):
    """With Gymnasium's own check of what step() returned."""


class Seen(Walk):
    """Images beside other parts."""

    observation_space = spaces.Dict({
        "camera": spaces.Box(0, 255, (4, 5, 3), np.uint8), "depth": spaces.Box(0, 1, (6, 5, 1), np.float32),
        "speed": spaces.Box(-1, 1, (2,), np.float32), "matrix": spaces.Box(0, 1, (6, 5), np.float32),
    })

    def seen(self):
        return {name: np.zeros(space.shape, space.dtype) for name, space in self.observation_space.items()}


class Planes(Walk):
    """Planes of bits, as MinAtar has them."""

    observation_space = spaces.Box(0, 1, (10, 10, 4), np.bool_)

    def seen(self):
        return np.zeros((10, 10, 4), np.bool_)


class Bits(Walk):
    observation_space = spaces.MultiBinary((10, 10, 4))

    def seen(self):
        return np.zeros((10, 10, 4), np.int8)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class RaisesMute(Walk):
    def step(self, action):
        raise Mute()


class RewardMute(Walk):
    def step(self, action):
        class Odd:
            def __repr__(self):
                raise RuntimeError("no text")

        observation, _, *rest = super().step(action)
        return (observation, Odd(), *rest)


class Flag(Walk):
    flag = "False"

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, self.flag, truncated, info


class FlagNan(Flag):
    flag = float("nan")


class FlagList(Flag):
    flag = [False, False]


class FlagArray(Walk):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, [np.array([terminated])], np.int8(truncated), info


class FlagNone(Walk):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or None, None, info


class Masked(Walk):
    def seen(self):
        return np.ma.array([self.x, 0.0], mask=[False, True])


class Words(Walk):
    action_space = spaces.Text(4)


class OneOf(Walk):
    action_space = spaces.Dict(a=spaces.OneOf((spaces.Discrete(2), spaces.Box(0, 1, (2,)))))


class Standing(Walk):
    """Has no end, and no limit."""

    def step(self, action):
        return self.seen(), 1.0, False, False, {}


for name, kind in list(globals().items()):
    if isinstance(kind, type) and issubclass(kind, Walk):
        limit = None if kind is Standing else 20
        gymnasium.register(f"{name}-v0", kind, max_episode_steps=limit, disable_env_checker=not name.startswith("Checked"))
