"""What `fit` is given: its arguments, arrays and batches, read and checked on the host."""
