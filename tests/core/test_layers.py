from __future__ import annotations

import pytest

from fedexp.core.layers import Layers
from fedexp.core.options import FedexpError

LAYERS = Layers(
    ("conv.weight", "bn.weight", "bn.mean", "fc.weight", "fc.bias", "fc2.weight"),
    ("conv.weight", "bn.weight", "fc.weight", "fc.bias", "fc2.weight"),
    frozenset({"fc2.weight"}),
    frozenset({"bn.weight", "bn.mean"}),
)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], set()),
        (["head"], {"fc2.weight"}),
        (["norm", "fc"], {"bn.weight", "bn.mean", "fc.weight", "fc.bias"}),  # not fc2
        (["fc.bias"], {"fc.bias"}),
    ],
)
def test_words_stand_for_entries(words: list[str], found: set[str]) -> None:
    assert LAYERS.chosen(words, "strategy.x") == found


def test_trained_entries_keep_their_order() -> None:
    others = LAYERS.others(["fc.weight", "fc.bias"])
    assert others == {"conv.weight", "bn.weight", "bn.mean", "fc2.weight"}
    assert LAYERS.trained(others) == ["conv.weight", "bn.weight", "fc2.weight"]


def test_a_word_for_nothing_is_refused() -> None:
    with pytest.raises(FedexpError, match=r"strategy.x: .* 'conv1'; it has conv, bn, fc, fc2 "):
        LAYERS.chosen(["head", "conv1"], "strategy.x")
