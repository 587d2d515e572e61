"""What a run does not show."""

from __future__ import annotations

from medrobust.report.findings import Findings
from medrobust.report.run import PROBES
from medrobust.report.section import ATTACK_COMMANDS, Content
from medrobust.report.sections.threat_model import untested
from medrobust.report.sizes import size_words
from medrobust.report.words import plural
from medrobust.results import Kind, among

ANCHOR, TITLE, ORDER = "limits", "What this run does not show", 130
COMMANDS = ATTACK_COMMANDS


def build(f: Findings) -> Content:
    return Content({"limits": [*limits(f), *untested(f)]})


def limits(f: Findings) -> list[str]:
    """A sentence each."""
    c, out = f.run.conditions, []
    if f.run.conditions.synthetic:
        out.append(
            "The images are synthetic. The numbers describe a model on drawings; they say nothing about patients."
        )
    reasons: dict[str, list[str]] = {}
    for item in f.run.left_out:
        reasons.setdefault(item.why, []).append(item.part)
    out += [f"Not measured: {', '.join(parts)} ({why})." for why, parts in reasons.items()]
    out.append(
        "An attack that fails proves nothing: the numbers under attack are upper bounds "
        "on the accuracy that a better attack would leave."
    )
    if f.largest is not None:
        out.append(f"Nothing is known beyond the tested sizes ({size_words(f, f.largest.eps)} at most).")
    if any(a not in PROBES for a in f.run.attacks):
        out.append(
            "The attacker was taken to know the model completely. "
            "One without the model would need more effort or larger changes."
        )
    out += [
        "The attacker changes pixels after the image was taken. "
        "Objects and printed patches in the scene, other devices and poor images are other questions.",
        "How visible a change is was judged by its size alone; no reader was asked.",
    ]
    if c.n_test is not None:
        out.append(f"All numbers come from {plural(c.n_test, 'test image')} of one source. Others may differ.")
    if c.size is not None and c.size < 200 and not c.shapes:
        far = ", far below diagnostic resolution" if f.directed else ""
        out.append(f"Images were {c.size} pixels wide{far}. At another resolution the numbers may differ.")
    pooled = f.directed and (len(f.disease) > 1 or len(f.normal) > 1)
    if pooled:
        out.append("Shares pooled over several classes treat the images as independent of each other.")
    if f.run.of_attacks("accuracy_saved") and not any(among(f.run.rows, kind=Kind.SURVIVAL)):
        out.append(
            "Saving means rounding to a bit depth. JPEG compression and resizing after the attack were not tried."
        )
    return out
