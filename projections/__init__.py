"""Read models folded from facts."""
