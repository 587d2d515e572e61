"""Columns and metrics of results as people read them: the one place that turns their names into words."""

from __future__ import annotations

COLUMNS = {
    "data": "data",
    "model": "model",
    "eps": "ε (/255)",
    "zeta": "ζ",
    "made_on": "made on",
    "fitted_on": "fitted on",
    "model_seed": "seed of the model",
    "data_seed": "seed of the split",
    "settings": "attack settings",
    "source": "made from",
    "goal": "goal",
    "attack": "attack",
    "detector": "detector",
    "seed": "seed",
    "norm": "norm",
    "split": "images",
    "round": "round",
    "pool": "perturbations",
    "at_fpr": "false alarms",
    "metric": "figure",
    "by": "measured by",
    "levels": "stored levels",
    "made": "made",
    "class_name": "class",
    "at": "distance (/255)",
    "bits": "saved at bits",
    "layer": "layer",
    "corruption": "corruption",
    "severity": "severity",
    "queries": "questions",
    "protocol": "protocol",
    "measure": "measure",
    "kind": "about",
    "n": "images",
    "transformation": "transformation",
    "bound": "proved by",
    "change": "change",
    "defence": "defence",
    "knows": "the attacker knows",
}
METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "targeted_base": "read as the target before",
    "targeted_success": "targeted success rate",
    "targeted_success_new": "targeted success rate of the others",
    "targeted_success_saved": "targeted success rate after saving",
    "fooling_rate": "fooling rate",
    "fooling_rate_saved": "fooling rate after saving",
    "fooling_cap": "cap of the fooling rate",
    "accuracy_before": "accuracy before",
    "accuracy_after": "accuracy after",
    "queries_median": "median queries",
    "pixels_median": "median pixels",
    "pixels_turned": "median pixels of images turned",
    "not_by_one_level": "not by one level",
    "turned_within": "turned",
    "changed_by_itself": "changed by itself",
    "undecided": "neither proved nor turned",
    "alarms_per_1000": "alarms in 1,000",
    "predictive_value": "an alarm is an attack",
    "success_saved": "success after saving",
    "rise": "rise of the loss (nats)",
    "min_eps_median": "median of the smallest ε that fools",
    "cam-shift": "shift of Grad-CAM",
    "relative-rank": "rank over the largest possible",
    "larger_than_noise": "pairs that move further than under noise",
    "larger": "pairs with the larger number",
}


def column(name: str) -> str:
    """The head of a column; one that is not known here without its underscores."""
    return COLUMNS.get(name, name.replace("_", " "))


def metric(name: str) -> str:
    """What was measured; a metric that is not known here without its underscores."""
    return METRICS.get(name, name.replace("_", " "))
