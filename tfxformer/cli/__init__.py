"""The command `tfxformer`: thin over tasks, compression, export and recipes."""
