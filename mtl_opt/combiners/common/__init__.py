"""Parts that several methods share: solvers, arguments, losses, state per task."""
