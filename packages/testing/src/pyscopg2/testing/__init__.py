"""For tests with pyscopg2: real clusters, a fake driver, virtual time, the adapters' contract."""
