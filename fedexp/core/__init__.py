"""What everything else stands on; NumPy at most on import."""
