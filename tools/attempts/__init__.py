"""Writers that use attempts, on real servers, against rows."""
