"""Every random draw of an experiment, keyed on what it is for.

A draw depends only on ``(seed, purpose, round, client)``, never on how many draws came before it or
in which process it happens. That is what makes results independent of the backend, of the number of
workers and of a task that Ray had to run twice.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Purpose = Literal[
    "init",
    "partition",
    "cohort",
    "evaluate_cohort",
    "train",
    "client_test",
    "feature_noise",
    "dropout",
    "straggler",
    "byzantine",
    "model",
    "server_validation",
    "client_validation",
    "test_split",
    "unseen",
    "mix",
    "panel",
    "clusters",
    "device",
    "shared_model",
]

# Fixed numbers: renumbering them would change the results of every published run.
_PURPOSE_IDS: dict[str, int] = {
    "init": 0,
    "partition": 1,
    "cohort": 2,
    "evaluate_cohort": 3,
    "train": 4,
    "client_test": 5,
    "feature_noise": 6,
    "dropout": 7,
    "straggler": 8,
    "byzantine": 9,
    "model": 10,
    "server_validation": 11,
    "client_validation": 12,
    "test_split": 13,
    "unseen": 14,
    "mix": 15,
    "panel": 16,
    "clusters": 17,
    "device": 18,
    "shared_model": 19,
}


def derive_seed(seed: int, purpose: Purpose, server_round: int = 0, client: int = 0) -> int:
    """Return the seed of one draw.

    Args:
        seed: The experiment's seed, >= 0.
        purpose: What the draw is for.
        server_round: Round of the draw, >= 0; 0 where the round does not matter.
        client: Partition id, >= 0; 0 where the client does not matter.

    Returns:
        An integer in [0, 2**63), suited to ``torch.Generator.manual_seed``.
    """
    key = (seed, _PURPOSE_IDS[purpose], server_round, client)
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def derive_rng(
    seed: int, purpose: Purpose, server_round: int = 0, client: int = 0
) -> np.random.Generator:
    """Return a NumPy generator for one draw; arguments as in :func:`derive_seed`."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, purpose, server_round, client)))
