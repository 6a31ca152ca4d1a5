"""What adapters over asyncpg share: its own, asyncpgsa's, and SQLAlchemy's in part.

The core imports no driver: an adapter hands in the module.
"""
