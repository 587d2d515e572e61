"""Networks by name, their pretrained weights, and checkpoints that hold no code."""

from __future__ import annotations

from medrobust.models.architectures import ALIASES, OWN, build, check_name
from medrobust.models.behaviour import behaviour, state, weights_state
from medrobust.models.black_box import BlackBoxModel
from medrobust.models.checkpoint import check_trusted, read, read_card, write
from medrobust.models.converted import Converted
from medrobust.models.delivered import NetworkRequest, is_delivered, stated_preprocessing
from medrobust.models.delivered import check as check_delivered
from medrobust.models.delivered import load as load_delivered
from medrobust.models.folding import folded
from medrobust.models.handmade import HANDMADE
from medrobust.models.http_endpoint import HttpEndpoint, is_url
from medrobust.models.kept_answers import KeptAnswers
from medrobust.models.memory_layout import channels_last
from medrobust.models.own_network import is_own
from medrobust.models.pretrained import Pretrained, normalisation

__all__ = [
    "ALIASES",
    "HANDMADE",
    "OWN",
    "BlackBoxModel",
    "Converted",
    "HttpEndpoint",
    "KeptAnswers",
    "NetworkRequest",
    "Pretrained",
    "behaviour",
    "build",
    "channels_last",
    "check_delivered",
    "check_name",
    "check_trusted",
    "folded",
    "is_delivered",
    "is_own",
    "is_url",
    "load_delivered",
    "normalisation",
    "read",
    "read_card",
    "state",
    "stated_preprocessing",
    "weights_state",
    "write",
]
