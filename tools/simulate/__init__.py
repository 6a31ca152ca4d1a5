"""Seeds against invariants: a manager on scripted hosts, in virtual time."""
