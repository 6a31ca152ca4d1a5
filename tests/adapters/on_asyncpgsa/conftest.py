"""SQLAlchemy 1.3 is imported here, before a test module does it."""

import importlib
import warnings

with warnings.catch_warnings():
    # Its extensions in C and its use of the standard library are older than Python 3.12.
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("asyncpgsa")
