"""``python -m core.research``: see core/research/cli.py."""

import sys

from core.research.cli import main

if __name__ == "__main__":
    sys.exit(main())
