"""`python -m segment_tools` is `segment-tools`."""

import sys

from segment_tools.surfaces.cli import main

if __name__ == "__main__":
    sys.exit(main())
