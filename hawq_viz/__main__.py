"""`python -m hawq_viz`: the command line."""

import sys

from hawq_viz.cli import main

if __name__ == "__main__":
    sys.exit(main())
