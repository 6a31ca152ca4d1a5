"""The fault bench: what pyscopg2 and its alternatives make of servers that die, freeze and move."""
