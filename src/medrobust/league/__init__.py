"""The league table: classifiers beside each other under one attack at fixed sizes on fixed images."""

from __future__ import annotations

from medrobust.league.rules import IMAGES, sizes

__all__ = ["IMAGES", "sizes"]
