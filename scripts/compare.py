"""The same as ``fedexp compare``."""

import sys

from fedexp.__main__ import main

if __name__ == "__main__":
    sys.argv[:1] = ["fedexp", "compare"]
    main()
