"""Who listens to a run: its folder, the terminal, W&B, TensorBoard."""
