"""`medrobust evade`: attacks that know the detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.choices import ATTACKS, DETECTORS, EVASIONS
from medrobust.cli.command_line import command_line
from medrobust.cli.doubts import warn
from medrobust.cli.options import MODEL, Device, ImageOptions, KeepNames, NetworkOptions, RunOut, Seed
from medrobust.cli.text import at_most, eps_list, guessed, say, say_left_out, table, words
from medrobust.errors import InputError


def evade(
    *,
    model: Annotated[str, typer.Option(help=f"{MODEL}.")],
    images: ImageOptions,
    network: NetworkOptions,
    detectors: Annotated[
        str, typer.Option(help=f"Names, commas between, of {DETECTORS}.")
    ] = "kd,lid,dfeat,mahalanobis",
    eps: Annotated[str, typer.Option(help="Ascending fractions of the pixel range.")] = "0.5/255,1/255,2/255,4/255",
    at: Annotated[
        str | None, typer.Option(help="Which of them the detectors are fitted at: 1/255, else the middle one.")
    ] = None,
    attacks: Annotated[str, typer.Option(help=f"The attack that detectors are fitted on, one of {ATTACKS}.")] = "pgd",
    evasions: Annotated[
        str, typer.Option(help=f"Names of {EVASIONS}, the quickest first; all are tried on images that resist.")
    ] = "selective,orthogonal,penalised,matching,hfc,confident",
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    layers: Annotated[str, typer.Option(help="Modules of the network that are read, and penultimate.")] = "penultimate",
    limit: Annotated[int, typer.Option(help="Correctly classified images that detectors are fitted on, 0: all.")] = 200,
    attacked: Annotated[int, typer.Option(help="How many of them are attacked past the detectors.")] = 60,
    seed: Seed = 0,
    device: Device = None,
    keep_names: KeepNames = False,
    out: RunOut = Path("runs/evade"),
) -> Path:
    """Fit detectors, then attack past them: how many images fool the classifier and raise no alarm."""
    from medrobust.experiments import ask
    from medrobust.experiments.evasion import EvadeAsk, Evading
    from medrobust.experiments.gradient_check import checked, mark
    from medrobust.experiments.system import assemble
    from medrobust.run_folder import RunFolder
    from medrobust.run_info import write
    from medrobust.store import counting
    from medrobust.threat import BALLS

    if attacked < 1:
        raise InputError(f"--attacked must be at least 1, got {attacked}")
    spec = ask(
        model=model,
        **images.asked,
        **network.asked,
        train=False,
        attacks=words(attacks),
        eps=eps_list(eps),
        norm=norm,
        seed=seed,
    )
    if len(spec.attacks) != 1:
        raise InputError(f"detectors are fitted on one attack, got --attacks {attacks}")
    wanted = EvadeAsk(
        detectors=words(detectors) or (),
        evasions=words(evasions) or (),
        fitted_on=spec.attacks[0],
        ball=spec.ball(_fitted_at(spec.eps, at)),
        eps=spec.eps,
        layers=words(layers) or (),
        limit=at_most(limit),
        attacked=attacked,
        seed=seed,
    )
    assert spec.norm in BALLS
    with Bars() as bars, counting() as tally, RunFolder(out, "evade") as run:
        subject = assemble(spec, run, bars, device)
        run.begin()
        found = Evading(wanted, out, subject.classifier, subject.data, subject.test, bars).run()
        check = checked(subject.classifier, subject.test, seed)
        mark(found["rows"], check)
        found |= {**subject.findings, "checks": [*found["checks"], *subject.checks(check)]}
        found["asked"] = {**spec.subject, "limit": limit, "attacked": attacked}
        write(run, "evade.json", found, command_line(), str(subject.classifier.device), keep_names=keep_names)
    warn(found["checks"], subject.class_notes)
    summary(found)
    say(tally.words())
    say(f"\nnumbers {out / 'evade.json'}")
    return out / "evade.json"


def _fitted_at(grid: tuple[float, ...], at: str | None) -> float:
    if at is None:
        grey = [e for e in grid if abs(e * 255 - 1) < 1e-9]
        return grey[0] if grey else grid[len(grid) // 2]
    chosen = eps_list(at) or ()
    if len(chosen) != 1 or chosen[0] not in grid:
        raise InputError(f"--at must be one of --eps, got {at}")
    return chosen[0]


def summary(run: dict[str, Any]) -> None:
    """Before and after, each share with its interval; then what eps it takes; then checks that failed."""
    from medrobust.experiments.evasion import BARE

    facts, rows = run["facts"], run["rows"]
    names = list(dict.fromkeys(r["detector"] for r in rows))

    def cell(name: str, metric: str, eps: float | None = None) -> str:
        found = [r for r in rows if r["detector"] == name and r["metric"] == metric and eps in (None, r["eps"])]
        return _shown(found[0]) if found else ""

    head = ["detector", "plain attack fools", "seen", "AUROC", "evasion fools", "seen", "at 1 %", "AUROC", "steps"]
    metrics = (
        "plain_fooled",
        "plain_detected@0.05",
        "plain_auroc",
        "fooled",
        "detected@0.05",
        "detected@0.01",
        "auroc",
        "steps",
    )
    title = (
        f"Attacks of {facts['eps'] * 255:.3g}/255 on {facts['n_attacked']} images, before and after they knew the "
        "detector; seen: of those that fool the classifier, at 5 % false alarms; 95 % interval"
    )
    judged = [n for n in names if n != BARE and any(r["detector"] == n and r["value"] is not None for r in rows)]
    if judged:
        table(head, [[name, *(cell(name, m) for m in metrics)] for name in judged], title)
    grid = sorted({r["eps"] for r in rows})
    reached = [["no detector" if n == BARE else n, *(cell(n, "reach@0.05", e) for e in grid)] for n in names]
    reached = [line for line in reached if any(line[1:])]
    if reached:
        title = (
            "Images that fool the classifier and raise no alarm at 5 % false alarms, by largest eps allowed; no "
            "detector: the same search where nothing raises an alarm"
        )
        table(["detector", *(f"{e * 255:.3g}/255" for e in grid)], reached, title)
    guessed(facts["guesses"])
    say_left_out(run["left_out"])
    for check in run["checks"]:
        if check["passed"] is False and not check["decisive"] and check["attack"] != "none":
            say(f"check failed: {check['name']} ({check['attack']}): {check['detail']}; {check['consequence']}")


def _shown(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "–"
    number = "{:.0f}" if row["metric"] == "steps" else "{:.2f}" if "auroc" in row["metric"] else "{:.0%}"
    value = number.format(row["value"])
    if row["metric"] == "steps":
        return value
    if row["low"] is None or row["high"] is None:
        return f"{value} (no interval)"
    return f"{value} ({number.format(row['low'])} to {number.format(row['high'])})"
