"""`python -m tools.simulate`."""

import sys

from .command import main

sys.exit(main())
