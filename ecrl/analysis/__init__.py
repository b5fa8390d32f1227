"""Analysis of entropy: the entropy law, first-order theory, and statistics over seeds."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
