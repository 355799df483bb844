"""A trained run put to use: plain model folders (`mtl-opt export`), answers (`mtl-opt generate`)."""
