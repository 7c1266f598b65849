"""A strategy of my own: federated averaging with a step size on the server.

    python mine.py -m strategy=mine,fedavg,local_only

Change ``combine`` to change what the server does, ``run`` to change what clients do.
"""

from dataclasses import dataclass

from fedexp import Client, Job, Server, Setup, Strategy, Updates, Weights, main, ranged, strategies


@strategies.register
@dataclass(frozen=True)
class Mine(Strategy):
    """What it does, and the paper it comes from."""

    name: str = "mine"
    server_learning_rate: float = ranged(0.5, gt=0)
    """Share of the way to the clients' mean."""

    def server(self, setup: Setup) -> Server:
        """Return the server's side."""
        return MineServer(self.server_learning_rate)

    def client(self) -> Client:
        """Return the client's side."""
        return MineClient()


class MineServer(Server):
    """Go part of the way to the clients' mean."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def combine(self, t: int, model: Weights, updates: Updates) -> Weights:
        """Return the next global model; ``model`` is the one that the round started from."""
        mean = updates.mean()
        return {name: x + self.rate * (mean[name] - x) for name, x in model.items()}


class MineClient(Client):
    """Train as usual, and count the rounds in a state that lasts."""

    def run(self, job: Job) -> None:
        """Do one client's work of one round."""
        rounds = int(str(job.state.get("rounds", 0))) + 1
        job.state["rounds"] = rounds
        job.send(job.train(), numbers={"rounds": rounds})


if __name__ == "__main__":
    main()
