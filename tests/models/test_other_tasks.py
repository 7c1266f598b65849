"""Models of tokens, series and tables: what plain PyTorch trains, fedexp trains to the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.helpers import config
from torch import Tensor, nn
from torch.nn import functional as F

from fedexp.config.training import TrainingConfig
from fedexp.core.roles import Order
from fedexp.core.seeding import derive_seed
from fedexp.data.examples import Spec
from fedexp.datasets import Dataset
from fedexp.federation.client import ClientNode
from fedexp.federation.dealing import federate
from fedexp.models import Model
from fedexp.models.char_lstm import CharLstm
from fedexp.models.cnn1d import Cnn1d
from fedexp.models.gru import Gru
from fedexp.models.linear import Linear
from fedexp.models.tabular_mlp import TabularMlp
from fedexp.models.textcnn import TextCnn
from fedexp.models.transformer import Transformer
from fedexp.testing.tiny import (
    TinyBrightness,
    TinyNumbers,
    TinyPairs,
    TinySeries,
    TinyText,
    TinyWords,
)
from fedexp.training.device import limited_threads

CASES: list[tuple[Model, Dataset]] = [
    (CharLstm(hidden=12), TinyText()),
    (Gru(embedding=6, hidden=10, dropout=0.3), TinyText()),
    (Gru(embedding=6, hidden=10, layers=2), TinyWords()),
    (Transformer(width=16, heads=2), TinyText()),
    (Transformer(width=16, dropout=0.4), TinyWords()),
    (TextCnn(embedding=6, filters=5), TinyWords()),
    (Cnn1d(channels=8), TinySeries()),
    (Cnn1d(channels=8), TinyPairs()),
    (TabularMlp(hidden=[12, 8]), TinyNumbers()),
    (Linear(), TinyNumbers()),
    (Linear(), TinyPairs()),
    (Linear(), TinyBrightness()),
]
TRAINING = TrainingConfig(local_steps=5, batch_size=8, learning_rate=0.05)


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        return F.mse_loss(outputs.reshape(targets.shape), targets)
    if targets.ndim == 2:
        counts = targets >= 0
        return F.cross_entropy(outputs[counts], targets[counts])
    return F.cross_entropy(outputs, targets)


@pytest.mark.parametrize(("model", "dataset"), CASES, ids=lambda page: page.name)
def test_a_client_trains_as_plain_pytorch_does(model: Model, dataset: Dataset) -> None:
    experiment = config(model=model, dataset=dataset, training=TRAINING)
    data = federate(experiment)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(0, "init"))
        module = model.build(data.spec)
    start = {name: value.numpy().copy() for name, value in module.state_dict().items()}
    reply = ClientNode(experiment, lambda: data).train(1, 2, Order(start), {})

    examples = data.train_examples([1])
    generator = torch.Generator().manual_seed(derive_seed(0, "train", 2, 1))
    order = torch.randperm(len(examples), generator=generator)
    optimizer = torch.optim.SGD(module.parameters(), 0.05, TRAINING.momentum)
    losses: list[float] = []
    with torch.random.fork_rng(), limited_threads(1):
        torch.manual_seed(derive_seed(0, "model", 2, 1))
        for batch in order.split(8)[:5]:
            optimizer.zero_grad()
            inputs = dataset.prepare(torch.from_numpy(examples.inputs)[batch])
            loss = _loss(module(inputs), torch.from_numpy(examples.targets)[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert reply.weights is not None
    for name, value in module.state_dict().items():
        np.testing.assert_allclose(reply.weights[name], value.numpy(), rtol=1e-3, atol=1e-5)
    assert reply.loss == pytest.approx(np.mean(losses), rel=0.03)


@pytest.mark.parametrize("model", [CharLstm(hidden=12), Gru(), Transformer()], ids=lambda m: m.name)
def test_no_place_sees_what_comes_after_it(model: Model) -> None:
    module = model.build(Spec((9,), (), 1, 1, vocabulary=7)).eval()
    texts = torch.randint(7, (4, 9))
    changed = texts.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 7
    with torch.no_grad():
        one, other = module(texts), module(changed)
    torch.testing.assert_close(one[:, :6], other[:, :6])
    assert not torch.allclose(one[:, 6:], other[:, 6:])


def test_the_lstm_has_the_papers_layers() -> None:
    module = CharLstm().build(Spec((80,), (), 1, 1, vocabulary=90))
    cells = next(part for part in module.modules() if isinstance(part, nn.LSTM))
    assert (cells.input_size, cells.hidden_size, cells.num_layers) == (8, 256, 2)
    embedding, head = 8 * 90, 257 * 90
    first, second = 4 * 256 * (8 + 256 + 2), 4 * 256 * (256 + 256 + 2)
    assert sum(p.numel() for p in module.parameters()) == embedding + first + second + head


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Transformer(width=10, heads=4), "model.heads must divide"),
        (Cnn1d(channels=6), "model.channels"),
        (TextCnn(widths=[]), "model.widths"),
        (TabularMlp(hidden=[0]), "model.hidden"),
    ],
)
def test_layers_that_cannot_be_are_refused(model: Model, words: str) -> None:
    (line,) = model.errors(config())
    assert line.startswith(words)


def test_a_text_shorter_than_a_filter_is_read() -> None:
    module = TextCnn().build(Spec((2,), ("a", "b"), 1, 1, vocabulary=7))
    assert module(torch.zeros(3, 2, dtype=torch.long)).shape == (3, 2)
