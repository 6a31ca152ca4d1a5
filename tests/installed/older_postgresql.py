"""Print where the older PostgreSQL's programs are, for `PG_BIN`; hatch.toml has it run."""

import os

from pyscopg2.testing.postgres import PostgresBinaries

print(PostgresBinaries.bundled(int(os.environ["SUPPORTED_POSTGRESQL"])).directory)
