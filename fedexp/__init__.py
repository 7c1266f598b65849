"""fedexp: federated-learning experiments on Flower, PyTorch and Ray."""

import os

# Read once, when flwr and ray are imported; whoever wants their telemetry can still switch it on.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# With a task that needs no GPU, Ray leaves CUDA_VISIBLE_DEVICES alone: what it will do by default.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

__version__ = "0.1.0"
