"""`python -m synque_select` is the command `synque-select`."""

import sys

from synque_select.cli.main import main

sys.exit(main())
