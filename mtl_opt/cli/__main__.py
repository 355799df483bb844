"""`python -m mtl_opt.cli`, for torchrun."""

import sys

from mtl_opt.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
