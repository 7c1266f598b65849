"""Examples in memory, and who holds which."""
