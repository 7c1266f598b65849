"""The same as ``fedexp compare``."""

import sys

from fedexp.analysis.programs import compare_program

if __name__ == "__main__":
    compare_program(sys.argv[1:])
