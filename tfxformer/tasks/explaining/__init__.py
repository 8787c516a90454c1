"""What a model read: explanations of a classifier's answers, and what its attention looks at."""
