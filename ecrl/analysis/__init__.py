"""The science of entropy: laws, theory, comparisons; numpy and scipy under a thin layer of I/O."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
