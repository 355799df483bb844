"""Before a run: its cost (`mtl-opt plan`) and its data (`mtl-opt data`)."""
