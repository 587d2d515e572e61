"""How cells of a grid are run: planned, executed here or on a cluster, and collected."""
