"""Files of other programs, read without them: ONNX weights, data of R, texts of SWORD, WordNet."""
