"""MiniLM-L6 for film reviews, made as small as it gets within a point of accuracy: the sweep of recipe.yaml.

Expected: see RESULTS.md beside, which the full run writes.
Command: python applications/shrink_sentiment/run.py [--quick]
"""

import argparse
import shutil
from pathlib import Path

from tfxformer.recipes.sweep import run_recipe

HOME = Path(__file__).parent
WRITTEN = ("RESULTS.md", "results.json", "score-over-size.png", "score-over-latency.png")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer texts: to see it run, not to measure it")
    parser.add_argument("--output", type=Path, default=Path("saved_models/shrink-sentiment"))
    options = parser.parse_args()
    output = options.output.with_name(f"{options.output.name}-quick") if options.quick else options.output
    run_recipe(HOME / ("quick.yaml" if options.quick else "recipe.yaml"), output)
    print((output / "RESULTS.md").read_text(encoding="utf-8"))
    if not options.quick:
        for name in WRITTEN:
            shutil.copyfile(output / name, HOME / name)
