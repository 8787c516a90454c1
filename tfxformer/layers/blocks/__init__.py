"""The blocks of stacks: the one of nearly all, and one inside of a narrower stream."""
