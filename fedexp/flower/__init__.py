"""The only code that knows Flower's insides."""
