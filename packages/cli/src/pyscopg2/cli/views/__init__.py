"""What people and programs see: pure functions of frozen values."""
