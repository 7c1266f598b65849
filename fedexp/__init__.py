"""fedexp: federated-learning experiments on Flower, PyTorch and Ray."""

import os

# Read once, when flwr and ray are imported; whoever wants their telemetry can still switch it on.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__version__ = "0.1.0"
