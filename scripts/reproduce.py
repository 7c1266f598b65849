"""The same as ``fedexp reproduce``."""

import sys

from fedexp.__main__ import main

if __name__ == "__main__":
    sys.argv[:1] = ["fedexp", "reproduce"]
    main()
