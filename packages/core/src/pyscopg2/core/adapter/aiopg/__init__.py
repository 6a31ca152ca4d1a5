"""What adapters over aiopg share: its own, and aiopg.sa's.

The core imports no driver: an adapter hands in the modules, aiopg and psycopg2.
"""
