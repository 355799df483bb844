"""What several methods share: solvers, checks of their arguments, state by task."""
