"""What a defence costs where nobody attacks: accuracy, sensitivity, calibration, time, images sent to a person."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np
import torch

from medrobust import guessing, stats
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments.context import Advance
from medrobust.experiments.tried_defences import Tried
from medrobust.images import Images
from medrobust.operating_points import ThresholdRule
from medrobust.results import Kind, Rows
from medrobust.stats import Estimate
from medrobust.store import Result

TIMED, REPEATS = 32, 15
"""Images that are answered at once when the time is taken, and how often that is done."""


def answered(tried: Tried, classifier: Classifier, part: Dataset, advance: Advance) -> Result:
    """Logits (n, k), decision (n,) or (n, k), and referred (n,) at one call, as a user gets them."""
    logits, referred = [], []
    for images, _, _ in part.batches(classifier.batch_size((1, *part.largest))):
        one, sent = tried.once(images)
        logits.append(one)
        referred.append(sent)
        advance(len(images))
    every = torch.cat(logits)
    return {}, {
        "logits": every.numpy(),
        "probability": classifier.to_probabilities(every).numpy(),
        "decision": classifier.head.decide(every).numpy(),
        "referred": torch.cat(referred).numpy(),
    }


def timed(tried: Tried, classifier: Classifier, images: Images) -> Result:
    """seconds, alone (REPEATS,) an image, after a call that is not counted; alone: of ``classifier``, in turn.

    On a CPU the processor's time, which other work on a busy machine does not lengthen.
    """
    clock = time.process_time if classifier.device.type == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {"seconds": [], "alone": []}
    for turn in range(REPEATS + 1):
        for name, call in (("seconds", tried.once), ("alone", classifier.logits)):
            began = clock()
            call(images)
            if turn:
                seconds[name].append((clock() - began) / len(images))
    return {}, {name: np.array(each) for name, each in seconds.items()}


def add_rows(
    rows: Rows,
    name: str,
    guards: bool,
    arrays: Mapping[str, np.ndarray],
    alone: Mapping[str, np.ndarray],
    labels: np.ndarray,
    patients: np.ndarray | None,
    seconds: Mapping[str, np.ndarray],
) -> None:
    """Rows of one defence on untouched test images; alone: ``answered`` of the classifier without one; seconds: of
    ``timed``.

    guards: whether it refers images. Then accuracy counts a referred image as not answered rightly; calibration,
    balanced accuracy and sensitivity are those of the images that it answers.
    """

    def add(metric: str, estimate: Estimate, note: str = "") -> None:
        rows.add(Kind.DEFENCE, metric, estimate, defence=name, note=note)

    kept = ~arrays["referred"]
    right = guessing.right(arrays["decision"], labels)
    rightly, before = right & kept, guessing.right(alone["decision"], labels)
    whose = stats.members(patients, kept)
    add("accuracy", stats.proportion(rightly, patients))
    if name != "none":
        add("accuracy_change", stats.paired_difference(before, rightly, patients))
    if guards:
        add("referred", stats.proportion(~kept, patients))
        add("wrong_answered", stats.proportion(~right[kept], whose))
    note = f"median of calls with {TIMED} images, or as many as there are"
    add("seconds_per_image", stats.median(seconds["seconds"]), note)
    if name != "none":
        add("times_as_long", stats.median(seconds["seconds"] / seconds["alone"]), f"{note}, in turn with no defence")
    hits = arrays["decision"] == labels
    add("balanced_accuracy", guessing.of(hits[kept], labels[kept], whose).balanced)
    if labels.ndim == 2 or not kept.any():
        return
    probability, decision = arrays["probability"][kept], arrays["decision"][kept]
    own = labels[kept]
    ece = stats.calibration_error(probability[np.arange(len(own)), decision], right[kept])
    add("ece", Estimate(ece, math.nan, math.nan, len(own)), "15 bins of equal size")
    add("brier", stats.mean(((probability - np.eye(probability.shape[1])[own]) ** 2).sum(1), whose))
    if probability.shape[1] == 2 and (own == 1).any() and (own == 0).any():
        specificity = (alone["decision"] == 0)[labels == 0].mean()
        logits = arrays["logits"][kept].astype(np.float64)
        scores = logits[:, 1] - logits[:, 0]
        cut = ThresholdRule("specificity", float(specificity)).cut(scores, own == 1)
        found = stats.proportion((scores > cut)[own == 1], stats.members(whose, own == 1))
        add("sensitivity", found, f"where the specificity is no less than the classifier's own, {specificity:.1%}")
