"""Forms of the graph for phones, and rounding as a phone will do it."""
