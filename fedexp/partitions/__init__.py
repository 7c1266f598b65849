"""The pages of ``partition=``."""
