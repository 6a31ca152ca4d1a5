"""`hatch run page:screenshots`: see `command`."""

import sys

from .command import main

sys.exit(main())
