"""`python -m moe_serve` is the `moe-serve` command."""

import sys

from moe_serve.cli.main import main

sys.exit(main())
