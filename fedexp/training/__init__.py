"""Training and evaluation on one client."""
