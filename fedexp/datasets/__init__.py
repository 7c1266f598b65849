"""The pages of ``dataset=``."""
