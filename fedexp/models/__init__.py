"""The pages of ``model=``."""
