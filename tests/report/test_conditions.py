"""The conditions of a run in words."""

from __future__ import annotations

from medrobust.report.conditions import _decision
from medrobust.report.schema import Conditions


def test_the_decision_of_findings_names_each_threshold_and_the_rule_that_chose_it():
    rule = {"threshold_rule": {"rule": "youden", "images": 20}}
    stated = Conditions.model_construct(head="multilabel", classes=["a", "b"], threshold=(0.3, 0.5), provenance=rule)
    assert _decision(stated) == "from a probability of: a 0.3, b 0.5 (by the rule youden on 20 validation images)"
    plain = Conditions.model_construct(head="logit", classes=["a", "b"], threshold=0.5, provenance={})
    assert _decision(plain) == "b from a probability of 0.5"
