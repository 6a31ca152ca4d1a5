"""`hatch run release:…`: RELEASING.md says when."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
