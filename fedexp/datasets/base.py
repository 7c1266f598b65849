"""What a dataset is: how it is read, and how batches are made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from fedexp.core.options import Plan, one_of, ranged
from fedexp.core.registry import Registry
from fedexp.data.assignment import Holders
from fedexp.data.examples import Examples, Spec
from fedexp.data.held_out import BOTH, CLIENTS, SERVER, held_by_server, num_held_out
from fedexp.data.loading import measure
from fedexp.data.population import Population
from fedexp.data.torchvision_files import Source, ensure_files, read_files
from fedexp.tasks import TOKENS

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Fitted(NamedTuple):
    """Examples as models see them, once it is known who holds which.

    Attributes:
        train: Training examples.
        test: Test examples.
        columns: How every column of a table became what it is now, for partition.json.
    """

    train: Examples
    test: Examples
    columns: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class Dataset:
    """Examples to train and test on.

    What ``validation`` holds out, nobody trains on. The server takes its share of all training examples
    before the rest is dealt; clients take theirs of what they were dealt. Shares are rounded down and
    keep the proportions of labels; every client keeps one training example at least.

    Attributes:
        task: What is to be said of an input: ``classification``, ``next_token`` or ``regression``; see
            ``fedexp.tasks``.
        kind: What an input is: ``image`` (channels, height, width), ``vector`` (numbers in a row),
            ``series`` (channels, length) or ``tokens`` (int32 or int64 in a row).
        facts: What is known before anything is read; None has the data read and measured first.
        fills: Whether inputs may be NaN until :meth:`fitted` fills them.
        remote: Whether the examples lie where clients are, so that nobody can load them here.
        metrics: Measured beside those of the task where ``metrics`` names none.
        folders: Options that name folders which a run reads more than once, such as a tokenizer's.
    """

    task: ClassVar[str] = "classification"
    kind: ClassVar[str] = "vector"
    facts: ClassVar[Spec | None] = None
    fills: ClassVar[bool] = False
    remote: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ()
    folders: ClassVar[tuple[str, ...]] = ()

    name: str = ""
    root: str = "data"
    """Folder of the dataset's files, where it has any."""
    validation: float = ranged(0.0, ge=0, lt=1)
    """Share of the training examples that is held out: the best round, early stopping and objective go by
    them, not by test data."""
    validation_by: str = one_of(SERVER, SERVER, CLIENTS, BOTH)
    """Who holds them out: the server before the rest is dealt, clients of their own, or both."""

    @property
    def spec(self) -> Spec:
        """Shape, classes and sizes."""
        return self.facts or measure(self)

    @property
    def num_dealt(self) -> int:
        """Training examples that are dealt to clients: all that the server does not hold out."""
        share = held_by_server(self.validation, self.validation_by)
        return self.spec.num_train - num_held_out(share, self.spec.num_train)

    @property
    def population(self) -> Population | None:
        """What draws the examples of any client; None where :meth:`load` returns them all."""
        return None

    @property
    def tokenized_by(self) -> str:
        """Folder of the tokenizer that texts were cut by; empty where tokens are of another making."""
        return ""

    def errors(self, plan: Plan) -> list[str]:
        """Return a line for every rule between options that is broken."""
        return []

    def ensure(self) -> None:
        """See to it that :meth:`load` will find its files, before anything else is started.

        Raises:
            FedexpError: With what to do, if they are absent and cannot be had.
        """

    def load(self) -> tuple[Examples, Examples]:
        """Read the training and the test examples; called once in a process.

        Raises:
            FedexpError: If they are absent or damaged, with the file and the remedy.
        """
        raise NotImplementedError(f"dataset={self.name} does not say how it is read")

    def version(self) -> str:
        """Return what differs once :meth:`load` would read other examples; it is then called again."""
        return ""

    def fitted(self, train: Examples, test: Examples, held: Holders) -> Fitted:
        """Change examples by what the clients can tell together, such as means; the default does not.

        Args:
            train: As :meth:`load` returns them.
            test: Likewise.
            held: Who holds which training example; each client may be asked about its own alone.
        """
        return Fitted(train, test)

    def prepare(self, batch: Tensor) -> Tensor:
        """Turn a batch of stored inputs into what a model takes, under ``torch.no_grad``.

        Args:
            batch: Inputs as stored, shape (n, ...), on the device of the model; not to be written to.

        Returns:
            float32, shape (n, ...); of tokens int64, shape (n, T).
        """
        return batch.long() if self.kind == TOKENS else batch.float()

    def vary(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Change a batch of stored training inputs at random (augmentation), under ``torch.no_grad``.

        The default leaves them as they are.

        Args:
            batch: Inputs as stored, shape (n, ...); not to be written to.
            generator: On the CPU, the client's own; no other source of chance may be used.
        """
        return batch


@dataclass(frozen=True)
class PopulationDataset(Dataset):
    """Examples that are drawn client by client, where a client trains; of any number of clients.

    Write :meth:`draw`, and say in ``facts`` what it returns, with 0 for the numbers of examples. Draw
    from a generator that is keyed on the client, such as ``numpy.random.default_rng((seed, client))``,
    and from nothing else. It goes with ``partition=population``.

    With ``validation``, no client trains on that share of its examples, drawn at random; what the listed
    clients have of it is the server's validation set.
    """

    def draw(self, client: int) -> tuple[Examples, Examples]:
        """Draw one client's training and test examples.

        Args:
            client: Its number, 0, 1, ...; what it holds must follow from that and the options alone.

        Returns:
            One training example at least; there may be no test examples.
        """
        raise NotImplementedError(f"dataset={self.name} does not say what a client holds")

    def sizes(self, client: int) -> tuple[int, int]:
        """Return how many training and test examples a client has; override it where that is cheaper."""
        train, test = self.draw(client)
        return len(train), len(test)

    @property
    def population(self) -> Population:
        """The page itself."""
        return self

    def load(self) -> tuple[Examples, Examples]:
        """Draw the examples of the first clients, by which two populations are told apart."""
        drawn = [self.draw(client) for client in range(SAMPLE)]
        return (
            Examples.joined([train for train, _ in drawn]),
            Examples.joined([test for _, test in drawn]),
        )


SAMPLE = 16
"""Clients whose examples stand for those of a population where it is hashed and checked."""

KINDS = ("image", "vector", "series", TOKENS)
"""What inputs can be; a page of yours may name another, and models that take it."""

REGISTRY: Registry[Dataset] = Registry("dataset", Dataset)
register = REGISTRY.register


@dataclass(frozen=True)
class ImageDataset(Dataset):
    """Images, uint8, shape (N, channels, height, width), values 0 .. 255.

    Attributes:
        mean: Per channel, subtracted from pixels scaled to [0, 1].
        std: Per channel, divides what is left.
    """

    kind: ClassVar[str] = "image"
    mean: ClassVar[tuple[float, ...]] = (0.5,)
    std: ClassVar[tuple[float, ...]] = (0.5,)

    def prepare(self, batch: Tensor) -> Tensor:
        """Return ``(x / 255 - mean) / std`` per channel, float32."""
        mean, std = _constants(self.mean, self.std, batch.device)
        return batch.float().div_(255.0).sub_(mean).div_(std)


@lru_cache
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: Any) -> tuple[Any, Any]:
    import torch

    shaped = [torch.tensor(values, device=device).view(-1, 1, 1) for values in (mean, std)]
    return shaped[0], shaped[1]


@dataclass(frozen=True)
class TorchvisionDataset(ImageDataset):
    """Images that torchvision downloads into ``root`` and reads from there."""

    @property
    def source(self) -> Source:
        """How torchvision finds the files."""
        raise NotImplementedError(f"dataset={self.name} does not say which of torchvision's it is")

    def ensure(self) -> None:
        """Download the files if they are absent."""
        ensure_files(self.name, self.root, self.source)

    def load(self) -> tuple[Examples, Examples]:
        """Read the files, and check that they hold what :attr:`spec` says."""
        return read_files(self.name, self.root, self.source, self.spec)


def grey(classes: tuple[str, ...], num_train: int = 60_000, num_test: int = 10_000) -> Spec:
    """Return the facts of a dataset of MNIST's form: 28x28 pixels, one channel."""
    return Spec((1, 28, 28), classes, num_train, num_test)


def coloured(classes: tuple[str, ...], num_train: int = 50_000, num_test: int = 10_000) -> Spec:
    """Return the facts of a dataset of CIFAR's form: 32x32 pixels, three channels."""
    return Spec((3, 32, 32), classes, num_train, num_test)
