"""More out of few examples: texts changed, texts labelled by a model, examples of an earlier task."""
