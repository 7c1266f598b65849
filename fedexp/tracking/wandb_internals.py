"""The corner of wandb that is not its public interface; the only module that knows it."""

from __future__ import annotations


def has_key() -> bool:
    """Look for a key where W&B would, without asking for one or writing anything.

    Raises:
        wandb.errors.AuthenticationError: If there is one that cannot be used.
    """
    import wandb
    from wandb.sdk.lib import wbauth

    host = wandb.setup().settings.base_url
    found = wbauth.authenticate_session(
        host=host, source="fedexp", prompt=False, update_session=False
    )
    return found is not None
