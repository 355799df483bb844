"""What ways of sharing are built from."""
