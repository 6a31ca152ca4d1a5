"""`python -m tools.demo`."""

import os
import signal
import sys

# Before the imports, which take a while: as long as there is no cluster, nothing is to be cleaned.
for _number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_number, lambda number, _: os._exit(128 + number))

from .command import main  # noqa: E402

sys.exit(main())
