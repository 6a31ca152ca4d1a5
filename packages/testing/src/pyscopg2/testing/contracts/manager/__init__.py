"""The parts of `pyscopg2.testing.manager_contract`, by what a manager promises."""
