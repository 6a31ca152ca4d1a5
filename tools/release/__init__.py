"""What a release does by rule; RELEASING.md has the steps."""
