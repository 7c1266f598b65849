"""FedDyn (Acar et al., ICLR 2021, arXiv 2111.04263): bend clients' losses so that their optima agree.

python feddyn.py -m strategy=mydyn,fedavg,local_only seed=0,1
"""

from dataclasses import dataclass

import numpy as np

from fedexp import Client, Job, Server, Setup, Strategy, Updates, Weights, main, ranged, strategies


@strategies.register
@dataclass(frozen=True)
class FedDyn(Strategy):
    """Algorithm 1 of the paper; the mean over a round's clients is unweighted, as there."""

    averages_buffers = True  # BatchNorm's statistics are averaged and never reach `combine`
    name: str = "mydyn"
    alpha: float = ranged(0.1, gt=0)

    def server(self, setup: Setup) -> Server:
        return FedDynServer(self.alpha, setup.num_clients)

    def client(self) -> Client:
        return FedDynClient(self.alpha)


class FedDynServer(Server):
    """h = h - alpha / m * sum(w_k - w), then w = mean(w_k) - h / alpha."""

    def __init__(self, alpha: float, num_clients: int) -> None:
        self.alpha, self.num_clients = alpha, num_clients
        self.h: Weights = {}

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        mean = updates.mean([1 / len(updates)] * len(updates))
        share = self.alpha * len(updates) / self.num_clients
        h = self.h or {name: np.zeros_like(w) for name, w in model.items()}
        self.h = {name: h[name] - share * (mean[name] - w) for name, w in model.items()}
        return {name: mean[name] - self.h[name] / self.alpha for name in mean}


class FedDynClient(Client):
    """Minimise L_k(w) - <g, w> + alpha / 2 ||w - w_t||^2, then g = g - alpha (w_k - w_t)."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def run(self, job: Job) -> None:
        kept, w = job.state.get("g"), job.model
        g = kept if isinstance(kept, dict) else {k: np.zeros_like(w[k]) for k in job.parameters}
        trained = job.train(pull=self.alpha, correction={k: -g[k] for k in job.parameters})
        job.state["g"] = {k: g[k] - self.alpha * (trained[k] - w[k]) for k in job.parameters}
        job.send(trained)


if __name__ == "__main__":
    main()
