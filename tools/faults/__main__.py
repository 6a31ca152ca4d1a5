"""`python -m tools.faults`."""

import sys

from .command import main

sys.exit(main())
