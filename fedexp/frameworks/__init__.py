"""What trains models that are not written in PyTorch."""
