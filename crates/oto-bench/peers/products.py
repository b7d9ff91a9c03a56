"""Matrix products of NumPy or PyTorch on one thread.

Questions and answers are lines of JSON (crates/oto-bench/src/products.rs).
"""

import json
import sys
import time


def numbers(count, seed):
    return [(i * 7919 + seed) % 1009 / 1009.0 - 0.5 for i in range(count)]


def operands(array, product):
    """Both sides as they are read, the second transposed where the product says so."""
    m, n, k = product["m"], product["n"], product["k"]
    a, b = array(numbers(m * k, 1)), array(numbers(k * n, 2))
    a = a.reshape(k, m).T if product["ta"] else a.reshape(m, k)
    b = b.reshape(n, k).T if product["tb"] else b.reshape(k, n)
    return a, b, array(numbers(n, 3))


def with_numpy():
    import numpy

    blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]

    def prepare(product):
        a, b, bias = operands(lambda x: numpy.array(x, dtype=numpy.float32), product)
        out = numpy.empty((product["m"], product["n"]), dtype=numpy.float32)

        def layer():
            numpy.matmul(a, b, out=out)
            numpy.add(out, bias, out=out)
            numpy.maximum(out, 0, out=out)

        def step():
            numpy.matmul(a, b, out=out)

        return (layer if product["layer"] else step), out

    return f"NumPy {numpy.__version__}, {blas['name']} {blas['version']}", prepare


def with_torch():
    import torch

    torch.set_num_threads(1)

    def prepare(product):
        a, b, bias = operands(lambda x: torch.tensor(x, dtype=torch.float32), product)
        out = torch.empty(product["m"], product["n"])

        def layer():
            torch.addmm(bias, a, b, out=out)
            out.relu_()

        def step():
            torch.mm(a, b, out=out)

        return (layer if product["layer"] else step), out

    blas = "MKL" if torch.backends.mkl.is_available() else "its own BLAS"
    return f"PyTorch {torch.__version__}, {blas}", prepare


def main():
    name, prepare = {"numpy": with_numpy, "torch": with_torch}[sys.argv[1]]()
    print(json.dumps({"ready": name}), flush=True)
    step = None
    for line in sys.stdin:
        question = json.loads(line)
        if "product" in question:
            step, out = prepare(question["product"])
            step()
            some = out.reshape(-1)[:: question["every"]].tolist()
            print(json.dumps({"some": some}), flush=True)
            continue
        fastest = float("inf")
        for _ in range(question["blocks"]):
            start = time.perf_counter()
            for _ in range(question["run"]):
                step()
            fastest = min(fastest, time.perf_counter() - start)
        print(json.dumps({"seconds": fastest / question["run"]}), flush=True)


if __name__ == "__main__":
    main()
