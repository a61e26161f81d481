"""How the image of a utility VM is made; `build.py` beside this folder is the command."""

import sys
from pathlib import Path

# What all recipes of packaging/ share lies beside this one's folder.
if (_COMMON := str(Path(__file__).parents[2] / "common")) not in sys.path:
    sys.path.append(_COMMON)
