"""`pyscopg2 check`: each host, stage by stage, and all of them together."""
