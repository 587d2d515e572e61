"""MedMNIST-C: the corruptions of Di Salvo et al. 2024 (arXiv:2406.17536), with their parameters and balanced errors.

Written from the paper and from what their package medmnistc 0.1 (Apache-2.0) does; none of its code is used. It
cannot be installed beside a current scikit-image. All of it is defined on images of 224 x 224 pixels with 8 bits:
lengths are pixels of such an image, whatever size the images have.

Left out: stain deposits (pathmnist, bloodmnist; 1 to 5 of them), whose shapes are images that come with the package,
and characters (dermamnist; 1 to 6 words), two pixels high in OpenCV's Hershey Duplex, which is not a dependency here:
other shapes would be held against AlexNet's errors under theirs. Random numbers are
keyed by image, as everywhere here, instead of drawn from one sequence: noise has their distribution, not their draws.
"""

from __future__ import annotations

from medrobust.data.corruptions.medmnist_c.balanced_error import BalancedErrors, balanced_errors
from medrobust.data.corruptions.medmnist_c.parameters import ALEXNET, LEFT_OUT, SETS, SIDE, corruptions

__all__ = ["ALEXNET", "LEFT_OUT", "SETS", "SIDE", "BalancedErrors", "balanced_errors", "corruptions"]
