"""`python -m tfxformer.samples`."""

from tfxformer.samples import main

main()
