"""Lets the program at the other end of a pipe act in a Gymnasium environment; PROTOCOL.md says how they speak.

It is started as `python3 -c`, so that oto needs no file beside it.
"""

import json
import os
import signal
import struct
import sys


class Refused(Exception):
    """A sentence for whoever started the program."""


def missing(package, install):
    return Refused(f"the Python package {package} is not installed; {sys.executable} -m pip install {install}")


def make(request):
    """The environment of an id; Atari games as the field plays them."""
    try:
        import gymnasium
    except ImportError as error:
        raise missing("gymnasium", "gymnasium") from error
    name = request["id"]
    if name.startswith("ALE/"):
        name, _, query = name.partition("?")
        return atari(gymnasium, name, request["training"], **choices(query))
    try:
        return gymnasium.make(name)
    except gymnasium.error.NameNotFound as error:
        raise Refused(f"{error} One of your own is MODULE:ID, such as my_envs:Reach-v0") from error
    except ModuleNotFoundError as error:
        if ":" in name:
            raise Refused(f"{error} Python looks for modules here and in the folders of PYTHONPATH") from error
        install = f"{sys.executable} -m pip install 'gymnasium[mujoco]'"
        raise Refused(f"{error}: {name} needs another of gymnasium's extras, such as {install}") from error


def choices(query):
    """What an id asks for behind its question mark, such as screen=42&limit=500."""
    known = {"screen": range(16, 161), "limit": range(1, 1 << 31), "still": range(1, 2_001)}
    chosen = {}
    for part in filter(None, query.split("&")):
        name, _, number = part.partition("=")
        if name not in known or not number.isdecimal() or int(number) not in known[name]:
            allowed = " and ".join(f"{n}={r.start} to {r.stop - 1}" for n, r in known.items())
            raise Refused(f"{part} is no choice of a game; there are {allowed}")
        chosen[name] = int(number)
    return chosen


def atari(gymnasium, name, training, screen=84, limit=None, still=None):
    """Mnih et al. 2015: 84 x 84 grey images, four frames a step, the last four of them together.

    In training a lost life ends the episode and rewards are clipped to their sign; evaluations play the whole game.
    `screen` is another side of the images; a game is cut off after `limit` steps; of `still` steps of chance the median image is
    what stands still, and a pixel is how far it is from that.
    """
    try:
        import ale_py
    except ImportError as error:
        raise missing("ale-py", "'gymnasium[atari]'") from error
    gymnasium.register_envs(ale_py)
    try:
        import cv2
    except ImportError as error:
        raise missing("opencv-python", "opencv-python-headless") from error

    class EpisodicLife(gymnasium.Wrapper):
        """Gymnasium's own switch starts the game anew after each life; then no student would see its later part."""

        over = True

        def reset(self, **options):
            if self.over or options.get("seed") is not None:
                observation, info = self.env.reset(**options)
            else:
                observation, _, terminated, truncated, info = self.env.step(0)
                if terminated or truncated:
                    observation, info = self.env.reset(**options)
            self.over, self.lives = False, self.unwrapped.ale.lives()
            return observation, info

        def step(self, action):
            observation, reward, terminated, truncated, info = self.env.step(action)
            self.over = terminated or truncated
            lives, self.lives = self.lives, self.unwrapped.ale.lives()
            return observation, reward, terminated or self.lives < lives, truncated, info

    class Moving(gymnasium.ObservationWrapper):
        """What moves, before black."""

        def __init__(self, env, still):
            super().__init__(env)
            self.still = still

        def observation(self, observation):
            return cv2.absdiff(observation, self.still)

    wrappers = gymnasium.wrappers
    # AtariPreprocessing draws the frames that it needs itself; what each of the four frames returns is cheapest in grey.
    game = gymnasium.make(name, frameskip=1, obs_type="grayscale")
    env = wrappers.AtariPreprocessing(game, screen_size=screen)
    if still:
        env = Moving(env, background(env, still))
    if limit:
        env = wrappers.TimeLimit(env, limit)
    if training:
        env = wrappers.TransformReward(EpisodicLife(env), lambda reward: (reward > 0) - (reward < 0))
    return wrappers.FrameStackObservation(env, 4)


def background(env, steps):
    """The median image of a game of chance, the same one every time."""
    import numpy

    env.reset(seed=0)
    chance, images = numpy.random.default_rng(0), []
    for _ in range(steps):
        observation, _, terminated, truncated, _ = env.step(chance.integers(env.action_space.n))
        images.append(observation)
        if terminated or truncated:
            env.reset()
    return numpy.median(images, axis=0).astype("u1")


def described(space, which):
    """A space as oto writes it, its tensors' type and its shape."""
    import numpy
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n)}, [1]
    if isinstance(space, spaces.Box):
        bounds = [
            [float(x) if numpy.isfinite(x) else None for x in bound.astype("<f4").ravel()]
            for bound in (space.low, space.high)
        ]
        return {"kind": "box", "low": bounds[0], "high": bounds[1]}, list(space.shape)
    raise Refused(f"the {which} space is {space}; Discrete and Box can be used, and Box as an observation alone")


class World:
    """An environment and how its observations and actions are written."""

    def __init__(self, request):
        self.env = make(request)
        self.observation, self.action = self.env.observation_space, self.env.action_space
        self.pixels = str(getattr(self.observation, "dtype", "")) == "uint8"

    def describe(self):
        observation, shape = described(self.observation, "observation")
        action, _ = described(self.action, "action")
        spec = self.env.spec
        return json.dumps({
            "observation": observation,
            "action": action,
            "shape": shape,
            "bytes": self.pixels,
            "max_episode_steps": spec and spec.max_episode_steps,
        }).encode()

    def seen(self, observation):
        import numpy

        if self.observation.shape == ():
            observation = observation - getattr(self.observation, "start", 0)
        return numpy.asarray(observation).astype("u1" if self.pixels else "<f4").tobytes()

    def reset(self, request):
        seed = struct.unpack("<Q", request)[0] if request else None
        return self.seen(self.env.reset(seed=seed)[0])

    def step(self, request):
        import numpy

        if self.action.shape == ():
            action = struct.unpack("<I", request)[0] + getattr(self.action, "start", 0)
        else:
            action = numpy.frombuffer(request, "<f4").astype(self.action.dtype).reshape(self.action.shape)
        observation, reward, terminated, truncated, _ = self.env.step(action)
        return struct.pack("<d??", float(reward), bool(terminated), bool(truncated)) + self.seen(observation)


def main():
    # What environments print goes to stderr: the pipe has frames and nothing else.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Ctrl-C is for the program at the other end; the end of the input is for this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, world = sys.stdin.buffer, None
    while len(head := source.read(5)) == 5:
        kind, length = struct.unpack("<cI", head)
        request = source.read(length)
        try:
            if kind == b"M":
                world = World(json.loads(request))
                answer = world.describe()
            elif kind == b"R":
                answer = world.reset(request)
            elif kind == b"S":
                answer = world.step(request)
            else:
                raise Refused(f"there is no request {kind}")
        except Refused as error:
            kind, answer = b"E", str(error).encode()
        except Exception as error:
            kind, answer = b"E", f"{type(error).__name__}: {error}".encode()
        pipe.write(struct.pack("<cI", kind, len(answer)) + answer)
        pipe.flush()


main()
