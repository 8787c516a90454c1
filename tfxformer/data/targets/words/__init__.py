"""Labels of words: on their pieces, in windows of long texts, and as entities."""
