"""``python -I -S .../uvmd/monitor/__main__.py [--] DAEMON [ARGUMENT]...``: the monitor.

Run by its path, isolated and without site: the interpreter then knows nothing of the
package, so the folder that holds it is put on the search path here.
"""

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.abspath(__file__).rsplit("/", 3)[0])
    from uvmd.monitor.monitor import main

    sys.exit(main())
