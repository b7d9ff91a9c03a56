"""Draws spaces and elements at random and writes what gymnasium.spaces.flatten makes of them: flatten.json.gz.

python make_flatten.py, with gymnasium 1.4.
"""

import collections
import gzip
import json

import numpy as np
from gymnasium import spaces

rng = np.random.default_rng(16)


def shape(most):
    return tuple(int(n) for n in rng.integers(1, 4, size=rng.integers(0, most + 1)))


def box():
    dtype = np.dtype(rng.choice(["float16", "float32", "float64", "uint8", "int8", "int64"]))
    size = shape(3)
    if dtype.kind == "f":
        low = rng.uniform(-5, 0, size=size)
        low = np.where(rng.random(size) < 0.3, -np.inf, low)
        high = np.where(rng.random(size) < 0.3, np.inf, rng.uniform(1, 5, size=size))
    else:
        low, high = (0, 255) if dtype == np.uint8 else (-7, 100)
    return spaces.Box(np.asarray(low, dtype)[()], np.asarray(high, dtype)[()], size, dtype)


def space(depth):
    kind = rng.integers(0, 6 if depth else 4)
    if kind == 0:
        return spaces.Discrete(int(rng.integers(1, 6)), start=int(rng.integers(-3, 4)))
    if kind == 1:
        size = shape(3) or (2,)
        nvec = rng.integers(1, 5, size=size)
        start = rng.integers(-2, 3, size=size) if rng.random() < 0.5 else None
        return spaces.MultiDiscrete(nvec, start=start)
    if kind == 2:
        return spaces.MultiBinary(shape(2) or int(rng.integers(1, 5)))
    if kind == 3:
        return box()
    parts = [space(depth - 1) for _ in range(rng.integers(1, 4))]
    if kind == 4:
        return spaces.Tuple(parts)
    names = [str(name) for name in rng.permutation(["z", "arm", "B", "goal", "ä"])]
    pairs = zip(names, parts)
    return spaces.Dict(collections.OrderedDict(pairs) if rng.random() < 0.3 else dict(pairs))


def bounds(array):
    return [float(x) if np.isfinite(x) else None for x in np.asarray(array).astype("<f4").ravel()]


def described(s):
    if isinstance(s, spaces.Discrete):
        return {"kind": "discrete", "n": int(s.n), "start": int(s.start)}
    if isinstance(s, spaces.MultiDiscrete):
        return {"kind": "multi_discrete", "nvec": s.nvec.ravel().tolist(), "start": s.start.ravel().tolist()}
    if isinstance(s, spaces.MultiBinary):
        return {"kind": "multi_binary", "n": int(np.prod(s.shape))}
    if isinstance(s, spaces.Box):
        return {"kind": "box", "low": bounds(s.low), "high": bounds(s.high)}
    if isinstance(s, spaces.Tuple):
        return {"kind": "tuple", "spaces": [described(part) for part in s.spaces]}
    return {"kind": "dict", "spaces": [[name, described(part)] for name, part in s.spaces.items()]}


def numbers(s, x):
    if isinstance(s, spaces.Tuple):
        return [n for part, value in zip(s.spaces, x) for n in numbers(part, value)]
    if isinstance(s, spaces.Dict):
        return [n for name, part in s.spaces.items() for n in numbers(part, x[name])]
    return np.asarray(x).astype("f8").ravel().tolist()


cases = []
for _ in range(150):
    s = space(3)
    s.seed(int(rng.integers(1 << 30)))
    flat = spaces.flatten_space(s)
    elements = []
    for _ in range(2):
        x = s.sample()
        elements.append({
            "numbers": numbers(s, x),
            "flat": np.asarray(spaces.flatten(s, x)).astype("<f4").astype("f8").tolist(),
        })
    cases.append({"space": described(s), "low": bounds(flat.low), "high": bounds(flat.high), "elements": elements})
with open("flatten.json.gz", "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as packed:
    packed.write(json.dumps({"kind": "flatten", "cases": cases}).encode())
