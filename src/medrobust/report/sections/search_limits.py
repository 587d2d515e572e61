"""What a comparison of searches does not show, and whose claim and tests it uses."""

from __future__ import annotations

from medrobust.report.findings import Findings
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER = "limits", "What this comparison does not show", 30
COMMANDS = ("search",)
LIMITS = (
    "One set of images and one kind of features. Whether a method is better in general takes several data sets.",
    "Seeds draw the folds and the searches anew, the images stay the same: intervals over seeds are narrower than "
    "those for new patients.",
    "Every search ran with the settings of its paper, nothing was tuned to these images; a tuned one may do better, as "
    "may tuned gradient descent.",
    "A network with a few hundred weights. With more weights gradients gain, for a search's cost grows with their "
    "number.",
)


def build(_: Findings) -> Content:
    return Content({"content": LIMITS})
