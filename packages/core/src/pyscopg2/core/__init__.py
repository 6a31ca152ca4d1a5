"""The driver-free core of pyscopg2."""
