"""From command-line overrides to a checked configuration."""
