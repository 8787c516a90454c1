"""What tasks share: texts in, batches, class weights, files, generation."""
