"""MedMNIST-C: the corruptions of Di Salvo et al. 2024 (arXiv:2406.17536), with their parameters and balanced errors.

Written from the paper and from what their package medmnistc 0.1 (Apache-2.0) does; none of its code is used. It
cannot be installed beside a current scikit-image. All of it is defined on images of 224 x 224 pixels with 8 bits:
lengths are pixels of such an image, whatever size the images have.

Left out, with their drawings: stain deposits (pathmnist, bloodmnist) and characters (dermamnist). Random numbers are
keyed by image, as everywhere here, instead of drawn from one sequence: noise has their distribution, not their draws.
"""

from __future__ import annotations

from medrobust.data.corruptions.medmnist_c.balanced_error import BalancedErrors, balanced_errors
from medrobust.data.corruptions.medmnist_c.parameters import ALEXNET, LEFT_OUT, SETS, SIDE, corruptions

__all__ = ["ALEXNET", "LEFT_OUT", "SETS", "SIDE", "BalancedErrors", "balanced_errors", "corruptions"]
