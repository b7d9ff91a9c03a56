"""oto-bench's workloads on PyTorch: one update as Tianshou's QR-DQN makes it, plus the teacher's AIKD terms; one thread.

Questions and answers are lines of JSON (crates/oto-bench/src/peer.rs). `--compile` sends the loss through torch.compile.
"""

import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F


def tensors(described):
    """Tensors by name from a list of {name, shape, values}."""
    return {t["name"]: torch.tensor(t["values"], dtype=torch.float32).reshape(t["shape"]) for t in described}


def network(params, x):
    """A multi-layer perceptron: ReLU after every layer but the last."""
    for weight, bias in params[:-1]:
        x = F.relu(F.linear(x, weight, bias))
    return F.linear(x, *params[-1])


def masked_mean(x, mask):
    return (x * mask).sum() / mask.sum().clamp(min=1.0)


class QrDqn:
    """The loss of QR-DQN (the quantile regression of tianshou's QRDQN policy) with one teacher."""

    def __init__(self, workload, data):
        self.quantiles = n = workload["quantiles"]
        self.observation = data["observation"]
        self.next_observation = data["next_observation"]
        self.reward = data["reward"].unsqueeze(1)
        self.discount = data["discount"].unsqueeze(1)
        self.rows = torch.arange(workload["batch"])
        self.action = data["action"].long()
        # One teacher.
        self.teacher_action = data["teacher_action"][0].long().unsqueeze(1)
        self.mask = data["mask"][0]
        self.perm = data["perm"].long()
        actions = workload["widths"][-1] // n
        self.one_hot = F.one_hot(self.teacher_action.squeeze(1), actions).float()
        self.weights = {k: data[k].item() for k in ("alpha_aikd", "delta", "eta", "alpha_task")}
        self.tau_hat = ((torch.arange(n, dtype=torch.float32) + 0.5) / n).view(1, n, 1)

    def bellman(self, target):
        """Reward + discount * the quantiles of the best next action, [B, N]."""
        next_dist = network(target, self.next_observation).view(len(self.rows), -1, self.quantiles)
        best = next_dist.mean(2).argmax(1)
        return self.reward + self.discount * next_dist[self.rows, best]

    def task(self, dist, returns):
        current = dist[self.rows, self.action].unsqueeze(2)
        returns = returns.unsqueeze(1)
        difference = returns - current
        huber = F.smooth_l1_loss(*torch.broadcast_tensors(current, returns), reduction="none")
        weight = (self.tau_hat - difference.detach().le(0.0).float()).abs()
        return (huber * weight).sum(-1).mean(1).mean()

    def aikd(self, q):
        log_softmax = F.log_softmax(q, 1)
        base = masked_mean(q.logsumexp(1) - q.gather(1, self.teacher_action).squeeze(1), self.mask)
        rkd_d = masked_mean(-log_softmax.gather(1, self.teacher_action).squeeze(1), self.mask)
        student, teacher = log_softmax.exp(), self.one_hot
        distance = 0.5 * (teacher + teacher[self.perm]) - 0.5 * (student + student[self.perm])
        rkd_a = masked_mean(distance.square().mean(1), self.mask * self.mask[self.perm])
        return self.weights["delta"] * base + self.weights["eta"] * (rkd_d + rkd_a)

    def __call__(self, params, target):
        with torch.no_grad():
            returns = self.bellman(target)
        dist = network(params, self.observation).view(len(self.rows), -1, self.quantiles)
        task = self.task(dist, returns)
        return self.weights["alpha_aikd"] * self.aikd(dist.mean(2)) + self.weights["alpha_task"] * task


class Distillation:
    """Cross-entropy with soft targets."""

    def __init__(self, _workload, data):
        self.observation, self.soft = data["observation"], data["soft"]

    def __call__(self, params, _target):
        return F.cross_entropy(network(params, self.observation), self.soft)


class Student:
    """Parameters, optimiser and target network at their start."""

    def __init__(self, workload, loss_of):
        data, state = tensors(workload["data"]), tensors(workload["state"])
        layers = len(workload["widths"]) - 1

        def named(prefix, requires_grad):
            names = [(f"{prefix}.{i}.weight", f"{prefix}.{i}.bias") for i in range(layers)]
            pairs = [tuple(state[n].clone().requires_grad_(requires_grad) for n in pair) for pair in names]
            flat = dict(zip((n for pair in names for n in pair), (p for pair in pairs for p in pair)))
            return pairs, flat

        self.loss_of = loss_of
        self.params, self.named = named("q", True)
        self.target, self.named_target = named("target", False) if "target.0.weight" in state else ([], {})
        # The fastest of PyTorch's Adams on a CPU: one kernel for all steps of a parameter.
        self.adam = torch.optim.Adam(list(self.named.values()), lr=data["lr"].item(), eps=1e-8, fused=True)
        self.mix = data["target_mix"].item() if self.target else 0.0

    def update(self):
        loss = self.loss_of(self.params, self.target)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        if self.target:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.named_target.values()), list(self.named.values()), self.mix)
        return loss

    def state(self):
        both = {**self.named, **self.named_target}
        return [{"name": n, "values": p.detach().flatten().tolist()} for n, p in both.items()]


def answers(arguments):
    """One answer for each line of input."""
    student = workload = loss_of = None
    for line in sys.stdin:
        question = json.loads(line)
        if "workload" in question:
            workload = question["workload"]
            kind = {"qr-dqn": QrDqn, "distillation": Distillation}[workload["task"]]
            loss_of = kind(workload, tensors(workload["data"]))
            if arguments.compile:
                loss_of = torch.compile(loss_of.__call__, fullgraph=True)
            student = Student(workload, loss_of)
            mode = "torch.compile" if arguments.compile else "eager"
            yield {"ready": f"PyTorch {torch.__version__}, {mode}, one thread"}
        elif "check" in question:
            student = Student(workload, loss_of)
            loss = student.update().item()
            yield {"loss": loss, "state": student.state()}
        else:
            start = time.perf_counter()
            for _ in range(question["run"]):
                student.update()
            yield {"seconds": time.perf_counter() - start}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    try:
        for answer in answers(arguments):
            print(json.dumps(answer), flush=True)
    except Exception as error:  # Whatever it is, the driver should say it.
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        raise


if __name__ == "__main__":
    main()
