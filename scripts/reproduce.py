"""The same as ``fedexp reproduce``."""

import sys

from fedexp.reproduce import reproduce_program

if __name__ == "__main__":
    reproduce_program(sys.argv[1:])
