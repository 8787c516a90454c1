"""What callers say: keywords, names of other libraries for ours, plain values, and what is said back."""
