import sys
from pathlib import Path

# `pruning_cases` is imported by the tests here and run by them as a script of its own.
sys.path.insert(0, str(Path(__file__).parent))
