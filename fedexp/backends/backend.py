"""``ray``, ``flower`` or ``inline``: three ways to run the same ServerApp and ClientApp."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedexp.backends.grid import RUN_ID, CohortGrid, InlineGrid, RayGrid
from fedexp.backends.ray_session import start_ray
from fedexp.config.schema import Config, FlowerBackend, RayBackend
from fedexp.data.federated import FederatedData
from fedexp.federation.client import build_client_app


def run_server(
    config: Config,
    data: FederatedData,
    server: Callable[[CohortGrid], None],
    *,
    verbose: bool = False,
) -> None:
    """Run a server function against the clients of an experiment.

    Args:
        config: Chooses the backend.
        data: What server and clients hold.
        server: The body of the ServerApp; gets the grid, and must take clients only from its
            ``cohort``.
        verbose: Let Flower speak.
    """
    if isinstance(config.backend, RayBackend):
        start_ray(config)
    if isinstance(config.backend, FlowerBackend):
        from fedexp.backends.flower_runtime import run_on_flower

        run_on_flower(config, server, verbose=verbose)
        return
    if isinstance(config.backend, RayBackend):
        grid: CohortGrid = RayGrid(config, data)
    else:
        grid = InlineGrid(build_client_app(config, lambda: data), config.clients.num)
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _: Context) -> None:
        assert isinstance(grid, CohortGrid)
        server(grid)

    app(grid, Context(RUN_ID, 0, {}, RecordDict(), {}))
