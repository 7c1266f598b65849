"""The same as ``fedexp report``."""

import sys

from fedexp.analysis.programs import report_program

if __name__ == "__main__":
    report_program(sys.argv[1:])
