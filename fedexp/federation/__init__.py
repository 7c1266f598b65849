"""One round: the loop, what a client does, guards, and the end of a run."""
