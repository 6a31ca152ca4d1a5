"""How a request gets a connection, and how it comes back."""
