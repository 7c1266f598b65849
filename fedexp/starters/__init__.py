"""What ``fedexp new`` writes, with ``mine`` for the name; nothing imports these files."""
