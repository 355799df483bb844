"""What a run will do, before it does it: `mtl-opt plan`, `mtl-opt data`."""
