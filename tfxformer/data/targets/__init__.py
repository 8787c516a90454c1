"""What a model is to answer: labels, spans, masked tokens, next sentences, packed documents."""
