"""`python -m fake FOLDER`: see `server.serve`."""

import sys
from pathlib import Path

from .server import serve

serve(Path(sys.argv[1]))
