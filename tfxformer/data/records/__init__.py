"""Examples in files that are read in any order and go on from any place."""
