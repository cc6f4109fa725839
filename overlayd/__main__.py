"""`python -m overlayd` is the command `overlayd`."""

import sys

from overlayd.cli import main

sys.exit(main())
