"""Networks as others deliver them: files, folders and names that say which network they hold and how it is called."""

from __future__ import annotations

from medrobust.models.delivered.formats import check, is_delivered, load, stated_preprocessing
from medrobust.models.delivered.network import Delivered, NetworkRequest

__all__ = ["Delivered", "NetworkRequest", "check", "is_delivered", "load", "stated_preprocessing"]
