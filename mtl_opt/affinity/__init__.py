"""How tasks relate: what to share (`mtl-opt share`), and which tasks to train together (`mtl-opt group`)."""
