"""A classifier of which only answers can be had: a callable from images to scores or labels, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.errors import InputError, one_line

Answer = Callable[[np.ndarray], Any]
"""float32 (n, c, h, w) in [0, 1] to scores (n, k), or to n labels: class indices or names; of several findings n rows
of k, whole numbers 0 and 1 or booleans."""


class BlackBoxModel(nn.Module):
    """A callable as a network without gradients: scores pass through, a label becomes +1 for its class, -1 elsewhere.

    answer: see ``Answer``. Every row that it is given is a query; it must answer rows independently of each other.
    classes: names in the order of the outputs, or how many there are (then labels are indices). several: they are
    findings, of which an image has any number; a label becomes +1 for each of its findings, -1 for the others.

    InputError, in one line, where ``answer`` fails or returns anything else.
    """

    def __init__(self, answer: Answer, classes: Sequence[str] | int, *, several: bool = False) -> None:
        super().__init__()
        self.answer, self.several = answer, several
        self.classes = list(map(str, range(classes))) if isinstance(classes, int) else list(classes)
        self.labels_only: bool | None = None
        """Whether it answers with labels; None until the first answer."""
        self.queries = 0
        """Rows asked about so far."""

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.detach().to("cpu", torch.float32).contiguous().numpy()
        try:
            answers = np.asarray(self.answer(pixels))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"the black box failed on {len(pixels)} image(s): {one_line(error)}") from error
        self.queries += len(pixels)
        scores, labels_only = as_scores(answers, len(pixels), self.classes, self.several)
        if self.labels_only not in (None, labels_only):
            raise InputError("the black box answers sometimes with labels and sometimes with scores")
        self.labels_only = labels_only
        return torch.from_numpy(scores).to(images.device)

    def __deepcopy__(self, memo: dict[int, object]) -> BlackBoxModel:
        """Itself: a session, a connection or a counter of queries is not copied."""
        return self


def as_scores(answers: np.ndarray, n: int, classes: Sequence[str], several: bool) -> tuple[np.ndarray, bool]:
    """float32 (n, k), a label as +1 for its class and -1 elsewhere, and whether the answers are labels.

    InputError where they are neither n labels nor n rows of numbers. several: see ``BlackBoxModel``.
    """
    if answers.ndim == 0 or len(answers) != n:
        raise InputError(f"the black box gave {answers.shape} for {n} image(s): one label or row of scores an image")
    if several and answers.dtype.kind in "iub":
        if answers.shape != (n, len(classes)) or not np.isin(answers, (0, 1)).all():
            raise InputError(
                f"the black box gave {answers.dtype} {answers.shape} for {n} image(s): a row of {len(classes)} "
                "findings an image, each 0 or 1"
            )
        return (2.0 * answers - 1.0).astype(np.float32), True
    if not several and answers.ndim == 1 and answers.dtype.kind in "iubUSO":
        chosen = np.array([_index(label, classes) for label in answers.tolist()], dtype=np.int64)
        return (2.0 * np.eye(len(classes), dtype=np.float32)[chosen] - 1.0).astype(np.float32), True
    if answers.dtype.kind not in "fiu":
        raise InputError(f"the black box gave {answers.dtype} where scores (numbers) or labels were expected")
    scores = np.ascontiguousarray(answers.reshape(n, -1), dtype=np.float32)
    if np.isnan(scores).any():
        raise InputError("the black box gave a score that is no number (NaN)")
    return scores, False


def _index(label: object, classes: Sequence[str]) -> int:
    if isinstance(label, bytes):
        label = label.decode(errors="replace")
    if isinstance(label, str):
        if label in classes:
            return classes.index(label)
    elif isinstance(label, int) and 0 <= label < len(classes):
        return int(label)
    names = ", ".join(classes[:8])
    raise InputError(f"the black box gave the label {str(label)[:80]!r}; known are 0 to {len(classes) - 1}, or {names}")
