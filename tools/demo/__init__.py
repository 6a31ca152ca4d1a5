"""The demo: a real PostgreSQL cluster loses its master while a program reads and writes."""
