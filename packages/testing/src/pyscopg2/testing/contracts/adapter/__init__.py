"""The parts of `pyscopg2.testing.contract`, by what an adapter is asked."""
