"""pytest runs the notebooks (nbmake) at a tiny size."""

import os

os.environ["SIGNAL_DRIFT_SIZE"] = "quick"
