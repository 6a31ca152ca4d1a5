"""What errors mean, and how they are said."""
