"""The pages of ``strategy=``."""
