"""How generated text begins, is kept to its rules, ends and flows: settings, token rules, stop strings, streams."""
