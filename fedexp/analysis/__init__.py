"""Finished runs: read, paired, compared, tested, drawn and reported."""
