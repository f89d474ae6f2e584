"""How well pitch classes fit keys, as listeners rated it: Krumhansl and Kessler (1982), from Krumhansl, Cognitive Foundations
of Musical Pitch (1990), page 30.
"""

from __future__ import annotations

import numpy as np

MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)  # from the tonic up
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
PROFILES = np.array([np.roll(profile, tonic) for profile in (MAJOR, MINOR) for tonic in range(12)])
PROFILES = (PROFILES - PROFILES.mean(1, keepdims=True)) / PROFILES.std(1, keepdims=True)
"""(24, 12): C major to B major, then C minor to B minor, each of mean 0 and deviation 1."""
