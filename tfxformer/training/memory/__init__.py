"""Whether a train step compiles for a device and fits into its memory, asked before it is rented."""
