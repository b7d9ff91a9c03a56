"""oto-bench's workloads on PyTorch: one update as Tianshou's QR-DQN makes it, plus the teacher's AIKD terms; SAC, TD3 and ensembles
of critics. One thread, or `--threads N`.

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


def q_values(params, x):
    """What each critic says, [N, B]. Two networks or fewer run one by one, more as batched products: each the faster way."""
    if isinstance(params[0][0], list):
        critics = zip(*([list(zip(*layer)) for layer in params]))
        return torch.stack([network(critic, x).squeeze(-1) for critic in critics])
    x = x.expand(params[0][0].shape[0], -1, -1)
    for i, (weight, bias) in enumerate(params):
        x = torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
        if i + 1 < len(params):
            x = F.relu(x)
    return x.squeeze(-1)


class ActorCritic:
    """Networks by layer, slow copies, Adam: what SAC, TD3 and ensembles share. Every gradient is taken at the old parameters."""

    def __init__(self, workload, data, state):
        self.data, self.mix = data, data["target_mix"].item()
        self.leaves, self.stacked = {}, {}
        for name, values in state.items():
            if name.startswith("adam."):
                continue
            grad = not name.startswith(("target.", "held."))
            if "critics." in name and values.shape[0] <= 2:
                self.stacked[name] = [v.clone().requires_grad_(grad) for v in values]
            else:
                self.leaves[name] = values.clone().requires_grad_(grad)
        self.critics, self.target_critics = self.layers("critics."), self.layers("target.critics.")
        named = [(n, p) for n, p in self.leaves.items()]
        named += [(n, p) for n, several in self.stacked.items() for p in several]
        learnt = [p for _, p in named if p.requires_grad]
        copies = [(p, n) for n, p in named if n.startswith("target.")]
        self.copies = [p for p, _ in copies]
        self.originals = [p for n, p in named if f"target.{n}" in {n for _, n in copies}]
        self.critic_leaves = [p for n, p in named if n.startswith("critics.")]
        self.adam = torch.optim.Adam(learnt, lr=data["lr"].item(), eps=1e-8, fused=True)

    def layers(self, prefix):
        found = {**self.leaves, **self.stacked}
        names = [n[: -len(".weight")] for n in found if n.startswith(prefix) and n.endswith(".weight")]
        return [(found[f"{n}.weight"], found[f"{n}.bias"]) for n in names]

    def judge(self, params, observation, action):
        return q_values(params, torch.cat([observation, action], 1))

    def frozen(self, judged):
        """The critics judge, and no gradient reaches them."""
        for p in self.critic_leaves:
            p.requires_grad_(False)
        value = judged()
        for p in self.critic_leaves:
            p.requires_grad_(True)
        return value

    def critic_loss(self, target):
        q = self.judge(self.critics, self.data["observation"], self.data["action"])
        return (q - target).square().mean(1).sum()

    def update(self):
        loss = self.loss()
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.copies, self.originals, self.mix)
        return loss

    def state(self):
        joined = {n: torch.stack(several) for n, several in self.stacked.items()}
        both = {**self.leaves, **joined}
        return [{"name": n, "values": p.detach().flatten().tolist()} for n, p in both.items()]


class Critics(ActorCritic):
    """Critics and given targets."""

    def loss(self):
        return self.critic_loss(self.data["target"])


class Sac(ActorCritic):
    """Soft actor-critic with a learnt temperature (Haarnoja et al. 2018)."""

    def __init__(self, workload, data, state):
        super().__init__(workload, data, state)
        heads = ("mean", "log_std")
        trunk = [layer for layer in self.layers("actor.") if layer[0].shape[0] == workload["widths"][1]]
        self.trunk = trunk
        self.heads = [(self.leaves[f"actor.{h}.weight"], self.leaves[f"actor.{h}.bias"]) for h in heads]
        self.entropy = -float(workload["widths"][-1])

    def sample(self, x, noise):
        for weight, bias in self.trunk:
            x = F.relu(F.linear(x, weight, bias))
        mean, log_std = (F.linear(x, *head) for head in self.heads)
        log_std = log_std.clamp(-20.0, 2.0)
        u = mean + log_std.exp() * noise
        gaussian = -0.5 * noise.square() - log_std - 0.9189385332046727
        squashing = 2.0 * (0.6931471805599453 - u - F.softplus(-2.0 * u))
        return u.tanh(), (gaussian - squashing).sum(1)

    def loss(self):
        data, log_alpha = self.data, self.leaves["log_alpha"]
        alpha = log_alpha.detach().exp()
        with torch.no_grad():
            action, log_prob = self.sample(data["next_observation"], data["next_noise"])
            q = self.judge(self.target_critics, data["next_observation"], action).amin(0)
            target = data["reward"] + data["discount"] * (q - alpha * log_prob)
        action, log_prob = self.sample(data["observation"], data["noise"])
        q = self.frozen(lambda: self.judge(self.critics, data["observation"], action)).amin(0)
        actor = (alpha * log_prob - q).mean()
        temperature = -(log_alpha * (log_prob.detach() + self.entropy).mean())
        return self.critic_loss(target) + actor + temperature


class Td3(ActorCritic):
    """TD3 (Fujimoto et al. 2018), an update in which the actor learns."""

    def __init__(self, workload, data, state):
        super().__init__(workload, data, state)
        self.actor, self.target_actor = self.layers("actor."), self.layers("target.actor.")

    def loss(self):
        data = self.data
        with torch.no_grad():
            noise = (0.2 * data["next_noise"]).clamp(-0.5, 0.5)
            action = (network(self.target_actor, data["next_observation"]).tanh() + noise).clamp(-1.0, 1.0)
            q = self.judge(self.target_critics, data["next_observation"], action).amin(0)
            target = data["reward"] + data["discount"] * q
        action = network(self.actor, data["observation"]).tanh()
        first = self.frozen(lambda: self.judge(self.critics, data["observation"], action))[0]
        actor = -first.mean()
        self.leaves["held.actor_loss"] = actor.detach().reshape(1)
        return self.critic_loss(target) + actor


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


LARGE = {"sac": Sac, "td3": Td3, "critics": Critics}


def maker(workload, arguments):
    """A function that makes a student at its start."""
    if workload["task"] in LARGE:
        data, state = tensors(workload["data"]), tensors(workload["state"])
        return lambda: LARGE[workload["task"]](workload, data, state)
    kind = {"qr-dqn": QrDqn, "distillation": Distillation}[workload["task"]]
    loss_of = kind(workload, tensors(workload["data"]))
    if arguments.compile:
        loss_of = torch.compile(loss_of.__call__, fullgraph=True)
    return lambda: Student(workload, loss_of)


def answers(arguments):
    """One answer for each line of input."""
    student = make = None
    for line in sys.stdin:
        question = json.loads(line)
        if "workload" in question:
            make = maker(question["workload"], arguments)
            student = make()
            mode = "torch.compile" if arguments.compile else "eager"
            yield {"ready": f"PyTorch {torch.__version__}, {mode}, threads: {arguments.threads}"}
        elif "check" in question:
            student = make()
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
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_num_interop_threads(1)
    try:
        for answer in answers(arguments):
            print(json.dumps(answer), flush=True)
    except Exception as error:  # Whatever it is, the driver should say it.
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        raise


if __name__ == "__main__":
    main()
