"""Known data sets, one a file: where to get it, its licence, its split, its labels and how to read it."""
