"""Networks trained by meta-heuristic search on image features, beside gradient baselines under one protocol.

Jindal & Kumar 2022 review such networks: features of an image, a small multilayer perceptron (MLP), and an
optimiser from nature that sets its weights, its features, its hyper-parameters or its decision threshold.
"""

from __future__ import annotations

from medrobust.training.evolved.extractor import KINDS, check_features, extractor
from medrobust.training.evolved.fitted import Fitted
from medrobust.training.evolved.folds import OuterFold, stratified, tasks
from medrobust.training.evolved.methods import (
    QUESTIONS,
    EvolvedResult,
    code,
    method,
    method_info,
    needs_gradient,
    optimiser,
)
from medrobust.training.evolved.mlp import Shape
from medrobust.training.evolved.problem import Problem
from medrobust.training.evolved.reduction import Reduction
from medrobust.training.evolved.scores import METRICS, scored
from medrobust.training.evolved.table import FeatureTable, breast_cancer, of_features, of_images

__all__ = [
    "KINDS",
    "METRICS",
    "QUESTIONS",
    "EvolvedResult",
    "FeatureTable",
    "Fitted",
    "OuterFold",
    "Problem",
    "Reduction",
    "Shape",
    "breast_cancer",
    "check_features",
    "code",
    "extractor",
    "method",
    "method_info",
    "needs_gradient",
    "of_features",
    "of_images",
    "optimiser",
    "scored",
    "stratified",
    "tasks",
]
