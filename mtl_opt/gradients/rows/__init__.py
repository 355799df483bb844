"""Storage of task gradients: the Jacobian in one buffer, Gramians by tensor, or rows at a representation."""
