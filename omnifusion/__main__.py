"""``python -m omnifusion``: the command line."""

import sys

from omnifusion.cli import main

if __name__ == "__main__":
    sys.exit(main())
