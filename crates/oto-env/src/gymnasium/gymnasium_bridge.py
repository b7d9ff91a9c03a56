"""Lets the program at the other end of a pipe act in a Gymnasium environment; PROTOCOL.md says how they speak.

It is started as `python3 -c`, so that oto needs no file beside it.
"""

import copy
import faulthandler
import json
import os
import signal
import struct
import sys
import threading
import traceback

# How long an environment's close() may take once nobody listens any more, in seconds.
FAREWELL = 10
# How much of a traceback is told, in characters.
LONGEST_TRACEBACK = 16_384


class Refused(Exception):
    """A sentence for the user."""


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
        module = name.partition(":")[0]
        if ":" in name and error.name == module:
            raise Refused(f"{error} Python looks for modules here and in the folders of PYTHONPATH") from error
        if ":" in name:
            raise
        install = f"{sys.executable} -m pip install 'gymnasium[mujoco]'"
        raise Refused(f"{error}: {name} needs another of gymnasium's extras, such as {install}") from error


def choices(query):
    """What an id asks for behind its question mark, such as screen=42&limit=500."""
    known = {"screen": range(16, 161), "limit": range(1, 1 << 31), "still": range(1, 2_001), "fire": range(0, 2)}
    chosen = {}
    for part in filter(None, query.split("&")):
        name, _, number = part.partition("=")
        if name not in known or not number.isdecimal() or int(number) not in known[name]:
            allowed = " and ".join(f"{n}={r.start} to {r.stop - 1}" for n, r in known.items())
            raise Refused(f"{part} is no choice of a game; there are {allowed}")
        chosen[name] = int(number)
    return chosen


def atari(gymnasium, name, training, screen=84, limit=None, still=None, fire=1):
    """Mnih et al. 2015: 84 x 84 grey images, four frames a step, the last four of them together.

    In training a lost life ends the episode and rewards are clipped to their sign; evaluations play the whole game.
    `screen` is another side of the images; a game is cut off after `limit` steps; of `still` steps of chance the median image is
    what stands still, and a pixel is how far it is from that; `fire=0` leaves the first FIRE to the player.
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

    class FireReset(gymnasium.Wrapper):
        """Some games wait for FIRE. As Stable-Baselines3's wrapper of this name: the first two actions are 1 and 2."""

        def reset(self, **options):
            observation, info = self.env.reset(**options)
            for action in (1, 2):
                observation, _, terminated, truncated, info = self.env.step(action)
                if terminated or truncated:
                    observation, info = self.env.reset()
            return observation, info

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
        env = EpisodicLife(env)
    meanings = game.unwrapped.get_action_meanings()
    if fire and len(meanings) >= 3 and meanings[1] == "FIRE":
        env = FireReset(env)
    if training:
        env = wrappers.TransformReward(env, lambda reward: (reward > 0) - (reward < 0))
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


class Leaf:
    """A space without parts, and its elements as numbers: all as float64, or all as bytes."""

    def __init__(self, space, at):
        import numpy
        from gymnasium import spaces

        self.numpy, self.space, self.at = numpy, space, at
        self.turned = None
        self.flatten = None
        if not isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Box)):
            # Text and OneOf, or a space of somebody's own. A row of numbers is no element of it: it can be seen, but not done.
            if at.startswith("action"):
                raise Refused(f"the {at} space is {space}, expected numbers or choices; a wrapper can offer them")
            try:
                self.flatten, self.whole = spaces.flatten, space
                self.space = space = spaces.flatten_space(space)
            except NotImplementedError:
                space = None
            if not isinstance(space, spaces.Box):
                raise Refused(f"the {at} space is {self.whole}, whose elements have no fixed length; a wrapper can give them one")
        self.shape = tuple(space.shape)
        self.size = int(numpy.prod(self.shape, dtype="i8"))
        self.dtype = space.dtype
        if isinstance(space, spaces.Box):
            self.low, self.high = space.low.astype("f8"), space.high.astype("f8")
            with numpy.errstate(over="ignore"):
                self.low_32, self.high_32 = space.low.astype("f4"), space.high.astype("f4")

    def describe(self):
        from gymnasium import spaces

        space = self.space
        if isinstance(space, spaces.Discrete):
            return {"kind": "discrete", "n": int(space.n), "start": int(space.start)}
        if isinstance(space, spaces.MultiDiscrete):
            starts = getattr(space, "start", self.numpy.zeros(self.shape, "i8"))
            return {"kind": "multi_discrete", "nvec": space.nvec.ravel().tolist(), "start": starts.ravel().tolist()}
        if isinstance(space, spaces.MultiBinary):
            return {"kind": "multi_binary", "n": self.size}
        return {"kind": "box", "low": self.bounds(self.low_32), "high": self.bounds(self.high_32)}

    def bounds(self, bound):
        return [float(x) if self.numpy.isfinite(x) else None for x in self.turn(bound).ravel()]

    def turn(self, array):
        return array if self.turned is None else self.numpy.transpose(array, self.turned)

    def array(self, value):
        """An element as an array of this space's shape, before its axes are turned."""
        if self.flatten:
            value = self.flatten(self.whole, value)
        try:
            array = self.numpy.asarray(value)
        except (ValueError, OverflowError):
            array = self.numpy.asarray(value, dtype=object)
        if self.numpy.ma.is_masked(value):
            raise Refused(f"{self.at} is an array with masked numbers, its space {self.space} has numbers alone")
        if array.dtype.kind not in "fiub":
            what = "nested lists of different lengths" if isinstance(value, (list, tuple)) else type(value).__name__
            raise Refused(f"{self.at} is {what}, its space {self.space} has numbers")
        if array.shape != self.shape:
            # One number may come as an array of one.
            if array.size != 1 or self.size != 1:
                raise Refused(f"{self.at} has the shape {array.shape}, its space {self.space} has {self.shape}")
            array = array.reshape(self.shape)
        return array

    def numbers(self, value, out):
        out.append(self.turn(self.array(value)).astype("<f8").tobytes())

    def bytes(self, value):
        array = self.array(value)
        if array.dtype != self.dtype:
            bytes = array.astype("u1")
            if not (bytes == array).all():
                wrong = array[bytes != array].ravel()[0]
                raise Refused(f"{self.at} has the number {wrong}, its space {self.space} has bytes")
            array = bytes
        return self.turn(array).tobytes()

    def element(self, numbers, begin):
        """An element as Gymnasium has it, and where the next one begins."""
        from gymnasium import spaces

        numpy, end = self.numpy, begin + self.size
        if isinstance(self.space, spaces.Discrete):
            return int(numbers[begin]), end
        array = numbers[begin:end].reshape(self.shape)
        if isinstance(self.space, spaces.Box):
            if self.dtype.kind == "f" and self.dtype.itemsize > 4:
                # A bound that float32 rounded is the bound.
                array = numpy.where(array == self.low_32, self.low, array)
                array = numpy.where(array == self.high_32, self.high, array)
            elif self.dtype.kind != "f":
                array = numpy.clip(numpy.rint(array), self.low, self.high)
        return array.astype(self.dtype), end


class Several:
    """A dictionary or a tuple of spaces."""

    def __init__(self, space, at):
        from gymnasium import spaces

        self.at, self.space = at, space
        self.named = isinstance(space, spaces.Dict)
        pairs = space.spaces.items() if self.named else enumerate(space.spaces)
        self.parts = [(name, tree(part, f"{at}[{name!r}]")) for name, part in pairs]
        for _, part in self.parts:
            if at.startswith("observation"):
                tell_image(part, " beside other parts")
            if isinstance(part, Leaf):
                part.turned = None

    def describe(self):
        if self.named:
            return {"kind": "dict", "spaces": [[str(name), part.describe()] for name, part in self.parts]}
        return {"kind": "tuple", "spaces": [part.describe() for _, part in self.parts]}

    def numbers(self, value, out):
        for name, part in self.parts:
            try:
                inner = value[name]
            except (KeyError, IndexError, TypeError) as error:
                raise Refused(f"{self.at} is {type(value).__name__} without {name!r}, its space is {self.space}") from error
            part.numbers(inner, out)

    def element(self, numbers, begin):
        elements = []
        for _, part in self.parts:
            element, begin = part.element(numbers, begin)
            elements.append(element)
        if self.named:
            return dict(zip((name for name, _ in self.parts), elements)), begin
        return tuple(elements), begin


def tree(space, at):
    from gymnasium import spaces

    return (Several if isinstance(space, (spaces.Dict, spaces.Tuple)) else Leaf)(space, at)


def tell_image(leaf, where=""):
    """Says that an image is not seen as one."""
    if not isinstance(leaf, Leaf) or leaf.flatten:
        return
    from gymnasium import spaces

    kind = pixels(leaf)[0]
    if kind in ("byte", "float"):
        print(f"{leaf.at} has numbers from 0 to 255;{where} they are taken as they are: scale them in a wrapper")
    bits = isinstance(leaf.space, spaces.MultiBinary) or (
        hasattr(leaf, "low") and leaf.dtype.kind in "iub" and (leaf.low == 0).all() and (leaf.high == 1).all())
    # Two of the three sides are those of an image.
    if (kind or bits) and len(leaf.shape) == 3 and sorted(leaf.shape)[1] > 2:
        print(f"{leaf.at} is an image of the shape {list(leaf.shape)};{where} it is taken as a row of {leaf.size} numbers: "
              "no convolution sees it")


def pixels(leaf):
    """What an image's numbers are: bytes, numbers from 0 to 255 or from 0 to 1; None where it is no image. Its shape is then
    [channels, height, width], and its axes are turned where the channels come last, as Stable-Baselines3's VecTransposeImage does:
    they are the shortest side."""
    if not isinstance(leaf, Leaf) or leaf.flatten or not hasattr(leaf, "low") or not (leaf.low == 0).all():
        return None, None
    if leaf.dtype == "u1" and (leaf.high == 255).all():
        kind = "byte"
    elif len(leaf.shape) == 3 and leaf.dtype.kind in "fiu" and (leaf.high == 255).all():
        kind = "float"
    elif len(leaf.shape) == 3 and leaf.dtype.kind == "f" and (leaf.high == 1).all():
        kind = "unit"
    else:
        return None, None
    shape = (1,) * (3 - len(leaf.shape)) + leaf.shape
    if len(leaf.shape) >= 3 and shape[-1] < min(shape[-3:-1]):
        *stacked, height, width, channels = range(len(shape))
        leaf.turned = (*stacked, channels, height, width)
        shape = tuple(shape[axis] for axis in leaf.turned)
    # Stacked images are channels too.
    return kind, [leaf.size // (shape[-2] * shape[-1]), *shape[-2:]]


def specification(env, flattened):
    """What makes the environment again with gymnasium.make, as Minari keeps it, or None."""
    try:
        import gymnasium

        if flattened:
            env = gymnasium.wrappers.FlattenObservation(env)
        spec = copy.deepcopy(env.spec)
        if callable(spec.entry_point):
            spec.entry_point = f"{spec.entry_point.__module__}:{spec.entry_point.__qualname__}"
        return spec.to_json()
    except Exception:
        return None


class Session:
    """An environment and how its observations and actions are written."""

    def __init__(self, request):
        self.env = make(request)
        import numpy

        self.numpy = numpy
        try:
            self.observation = tree(self.env.observation_space, "observation")
            self.action = tree(self.env.action_space, "action")
            self.pixels, self.image = pixels(self.observation)
            if self.pixels is None:
                tell_image(self.observation)
        except BaseException:
            self.env.close()
            raise

    def describe(self):
        spec = self.env.spec
        flattened = not (isinstance(self.observation, Leaf) and hasattr(self.observation, "low"))
        return json.dumps({
            "observation": self.observation.describe(),
            "action": self.action.describe(),
            "shape": self.image or list(getattr(self.observation, "shape", [])),
            "pixels": self.pixels,
            "max_episode_steps": spec and spec.max_episode_steps,
            "spec": specification(self.env, flattened),
        }).encode()

    def seen(self, observation):
        if self.pixels == "byte":
            return self.observation.bytes(observation)
        out = []
        self.observation.numbers(observation, out)
        return b"".join(out)

    def reset(self, request):
        seed = struct.unpack("<I", request)[0] if request else None
        try:
            answer = self.env.reset(seed=seed)
        except TypeError as error:
            if "'seed'" in words(error) and "keyword" in words(error):
                raise Refused(f"{error}; Gymnasium's is reset(self, *, seed=None, options=None)") from error
            raise
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
            raise Refused(f"reset() returned {shown(answer)}, expected an observation and an info dictionary; {OLD}")
        return self.seen(answer[0])

    def step(self, request):
        action, _ = self.action.element(self.numpy.frombuffer(request, "<f8"), 0)
        try:
            answer = self.env.step(action)
        except ValueError as error:
            # A wrapper of Gymnasium's unpacks what came.
            if "values to unpack (expected 5" in words(error):
                raise Refused(f"step() returned too few or too many values ({error}); {OLD}") from error
            raise
        except (TypeError, OverflowError) as error:
            if checked_by_gymnasium(error):
                text = f"{type(error).__name__}: {words(error)}"
                raise Refused(f"Gymnasium cannot check the reward or another value of step(): {text}; the reward is one number") from error
            raise
        if not (isinstance(answer, tuple) and len(answer) == 5):
            raise Refused(f"step() returned {shown(answer)}; {OLD}")
        observation, reward, terminated, truncated, _ = answer
        head = struct.pack("<d??", self.reward(reward), flag("terminated", terminated), flag("truncated", truncated))
        return head + self.seen(observation)

    def reward(self, reward):
        try:
            array = self.numpy.asarray(reward)
        except Exception as error:
            raise Refused(f"the reward of step() is {shown(reward)}, expected one number") from error
        if array.size != 1 or array.dtype.kind not in "fiub":
            raise Refused(f"the reward of step() is {shown(reward)}, expected one number")
        return float(array.ravel()[0])


OLD = (
    "Gymnasium's step() returns observation, reward, terminated, truncated, info; an environment of the old Gym API, before 0.26,"
    " has to be ported, or wrapped as gymnasium.make('GymV21Environment-v0', env_id=...) of the package shimmy does"
)


def shown(value):
    """A value as errors show it."""
    if isinstance(value, tuple):
        return f"{len(value)} values"
    text = words(value, repr)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:80] + '...'}"


def words(value, how=str):
    """The text of a value, whatever its class does when it is asked for one. An integer of thousands of digits has none either."""
    try:
        return how(value)
    except Exception as error:
        return f"(no text: its {how.__name__}() raises {type(error).__name__})"


def checked_by_gymnasium(error):
    """Whether Gymnasium's check of what step() returned failed on a value that it does not foresee."""
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(name.endswith("passive_env_checker.py") for name in frames[-2:])


def flag(name, value):
    """The truth of a value: Python's, but a text such as "False" or NaN would be true, and a list is true whatever is in it."""
    expected = f"{name} of step() is {shown(value)}, expected True or False"
    try:
        value = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
        truth = bool(value)
    except Exception as error:
        raise Refused(expected) from error
    if isinstance(value, (str, bytes, list, tuple, dict)) or truth and value != value:
        raise Refused(expected)
    return truth


def told(error):
    """An exception of the environment's, with the frames that are not this program's."""
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename == "<string>":
        frames = frames.tb_next
    text = "".join(traceback.format_tb(frames))
    if len(text) > LONGEST_TRACEBACK:
        text = text[:LONGEST_TRACEBACK // 2] + "  ...\n" + text[-LONGEST_TRACEBACK // 2:]
    sentence = f"{type(error).__name__}: {words(error)}"[:LONGEST_TRACEBACK]
    return f"{sentence}\nTraceback (most recent call last):\n{text.rstrip()}" if text else sentence


def read(source, count):
    """So many bytes; None where the pipe ends before."""
    parts = []
    while count and (part := os.read(source, count)):
        parts.append(part)
        count -= len(part)
    return None if count else b"".join(parts)


def write(to, data):
    while data:
        data = data[os.write(to, data):]


def serve(source, to, sessions):
    while head := read(source, 5):
        kind, length = struct.unpack("<cI", head)
        request = read(source, length)
        if request is None:
            return
        try:
            if kind == b"M" and not sessions:
                sessions.append(Session(json.loads(request)))
                answer = sessions[0].describe()
            elif kind == b"R" and sessions:
                answer = sessions[0].reset(request)
            elif kind == b"S" and sessions:
                answer = sessions[0].step(request)
            else:
                raise Refused(f"there is no request {kind} now")
        except Refused as error:
            kind, answer = b"E", str(error).encode(errors="replace")
        except Exception as error:
            kind, answer = b"E", told(error).encode(errors="replace")
        write(to, struct.pack("<cI", kind, len(answer)) + answer)


def pipes():
    """The pipe's two ends, away from where environments and their children read and print: standard input is empty, what is
    printed goes to standard error. Children do not have the pipe."""
    source, to = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: (os.close(source), os.close(to)))
    return source, to


def leave(status):
    """Ends the process, whatever threads the environment left behind."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        import atexit

        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def main():
    source, to = pipes()
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    faulthandler.enable()
    # Ctrl-C is for the program at the other end; the end of the input is for this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sessions, status = [], 0
    try:
        serve(source, to, sessions)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BrokenPipeError:
        pass
    except BaseException:
        traceback.print_exc()
        status = 1
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(FAREWELL)
    for session in sessions:
        try:
            session.env.close()
        except Exception:
            traceback.print_exc()
    leave(status & 0xFF)


main()
