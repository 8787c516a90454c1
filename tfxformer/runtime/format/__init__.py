"""The bytes of a LiteRT file: flatbuffer, metadata, checksum."""
