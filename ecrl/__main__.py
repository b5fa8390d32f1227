"""``python -m ecrl`` is the ``ecrl`` command."""

import sys

from ecrl.cli import main

sys.exit(main())
