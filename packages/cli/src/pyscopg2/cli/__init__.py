"""The command pyscopg2: what is wrong with a cluster, and what it does just now."""
