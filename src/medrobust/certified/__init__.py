"""Proofs: sizes of change within which no attack of any kind can change a decision."""

from medrobust.certified.bounds import METHODS, WRONG, Method, margin, proved
from medrobust.certified.graph import Graph, graph_of
from medrobust.certified.smoothing import ABSTAINED, Smoothed, Smoothing, lower_limit, smooth

__all__ = [
    "ABSTAINED",
    "METHODS",
    "WRONG",
    "Graph",
    "Method",
    "Smoothed",
    "Smoothing",
    "graph_of",
    "lower_limit",
    "margin",
    "proved",
    "smooth",
]
