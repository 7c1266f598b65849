"""The words that server and clients share: the keys of their messages."""

from __future__ import annotations

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
"""Records of a message: weights, instructions, what a client reports."""

CONTROL = "control"
"""Record of SCAFFOLD's control variate, or in a reply of its change."""

NUM_EXAMPLES, TRAIN_LOSS = "num-examples", "train_loss"
"""Metrics of every training reply: images the client holds, mean loss of its last epoch."""

GLOBAL_LOSS, GRADIENT_MASS = "global-loss", "gradient-mass"
"""Instructions that ask for the metric of the same name: the incoming model's loss on all the client's
images, taken before training; and :func:`fedexp.training.loop.gradient_mass` of its steps."""

SERVER_ROUND, PROXIMAL_MU, PARTITION_IDS = "server-round", "proximal-mu", "partition-ids"
"""Instructions: the round, FedProx's constant, and for ``centralized`` whose images to train on."""

PARTITION_ID = "partition-id"
"""Which partition a node holds: in its configuration, and in its answer to a query."""
