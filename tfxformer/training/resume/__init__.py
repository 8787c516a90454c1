"""A `fit` that was stopped goes on as if it had not been: state, files, place in the data."""
