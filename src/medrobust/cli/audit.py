"""`medrobust audit`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.command_line import command_line
from medrobust.cli.doubts import say_classes, warn_of_order
from medrobust.cli.options import (
    MODEL,
    Device,
    Healthy,
    ImageOptions,
    KeepNames,
    NetworkOptions,
    Out,
    Seed,
    TrainingOptions,
)
from medrobust.cli.text import at_most, eps_list, guessed, say, table, words


def audit(
    *,
    images: ImageOptions,
    model: Annotated[str, typer.Option(help=f"{MODEL}; a timm architecture without weights is trained.")] = "resnet18",
    network: NetworkOptions,
    training: TrainingOptions,
    train: Annotated[bool | None, typer.Option("--train/--no-train", help="Train module:function, or do not.")] = None,
    healthy: Healthy = None,
    attacks: Annotated[
        str, typer.Option(help="Names, with options after colons: fgsm,bim,pgd:steps=40:restarts=3,cw.")
    ] = "fgsm,bim,pgd,cw",
    eps: Annotated[
        str | None,
        typer.Option(help="Ascending fractions of the pixel range: 0.5/255,1/255. 0.1 to 10 grey levels by default."),
    ] = None,
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    limit: Annotated[int, typer.Option(help="How many test images are attacked, 0 for all; drawn by class.")] = 80,
    auto: Annotated[
        str, typer.Option(help="The ensemble of the headline number; auto for its full length, none for no ensemble.")
    ] = "auto:steps=15:queries=50",
    universal: Annotated[
        bool, typer.Option("--universal/--no-universal", help="Also look for one change that fools on every image.")
    ] = True,
    detect: Annotated[
        bool, typer.Option("--detect/--no-detect", help="Also ask whether the attack can be seen, and evaded.")
    ] = True,
    explain: Annotated[
        bool, typer.Option("--explain/--no-explain", help="Also look for the reasons inside the network.")
    ] = True,
    seed: Seed = 0,
    device: Device = None,
    keep_names: KeepNames = False,
    out: Out = None,
) -> Path:
    """Attack a classifier, judge, check, and leave a report that a doctor, an engineer and a reviewer can read."""
    from medrobust import report
    from medrobust.experiments import ask
    from medrobust.experiments import audit as run_audit
    from medrobust.store import counting

    spec = ask(
        model=model,
        **images.asked,
        **network.asked,
        **training.asked,
        train=train,
        healthy=healthy,
        attacks=words(attacks),
        eps=eps_list(eps),
        norm=norm,
        seed=seed,
        auto="" if auto == "none" else auto,
        universal=universal,
        detect=detect,
        explain=explain,
    ).model_copy(update={"limit": at_most(limit)})
    folder = out or Path("runs") / spec.slug()
    with Bars() as bars, counting() as tally:
        results = run_audit(spec, folder, progress=bars, device=device, keep_names=keep_names, command=command_line())
        page = report.write(folder)
    summary(results)
    say(tally.words())
    say(f"\nreport  {page}\nnumbers {folder / 'results.csv'}")
    return folder / "results.json"


def summary(results: dict[str, Any]) -> None:
    """The few numbers that a person at a terminal wants first."""
    rows, told = results["rows"], results["conditions"]
    warn_of_order(results["checks"])
    if unbelieved := [c for c in results["checks"] if c["decisive"] and c["passed"] is False]:
        names = " and ".join(f"“{name}”" for name in dict.fromkeys(c["name"] for c in unbelieved))
        say(f"INCONCLUSIVE: failed: {names}. What attacks that follow gradients leave is no sign of strength.")
    say_classes(told["class_notes"])
    clean = next(r for r in rows if r["attack"] == "none" and r["metric"] == "accuracy")
    held = [r for r in rows if r["metric"] == "accuracy" and r["attack"] in told["attacks"]]
    levels = sorted({r["eps"] for r in held})
    near = [e for e in levels if any(abs(e * 255 - g) < 0.02 for g in (0.1, 0.3, 0.5, 1, 2, 4, 8))]
    if len(levels) <= 8 or not near:
        near = levels[:8]
    lines = []
    for name, about in told["attacks"].items():
        by_eps = {r["eps"]: r for r in held if r["attack"] == name}
        lines.append([about["title"], *(_cell(by_eps.get(e)) for e in near)])
    noise = {r["eps"]: r for r in rows if r["metric"] == "accuracy" and r["attack"] == "noise"}
    lines.append(["Random ± eps noise", *(_cell(noise.get(e)) for e in near)])
    title = (
        f"Accuracy on {told['n_attacked']} test images under attack "
        f"(clean, all {told['n_test']}: {clean['value']:.1%}, {clean['low']:.1%} to {clean['high']:.1%})"
    )
    guessed(guesses(rows))
    table(
        ["attack \\ eps", *(f"{e * 255:.3g}/255" if told["norm"] == "Linf" else f"{e:.3g}" for e in near)], lines, title
    )
    if told.get("headline"):
        say(headline(rows, told["headline"], told["norm"]))
    if told.get("universal"):
        say(one_change(rows, told["universal"], told["norm"]))
    checked(results["checks"])
    if told["left_out"]:
        say(f"{len(told['left_out'])} images were left out: see the report")


def checked(checks: list[dict[str, Any]]) -> None:
    """How many checks passed of those that could have failed, and each that did not pass."""
    from medrobust.report.check_lines import counted
    from medrobust.report.run import Check

    say(counted([Check.model_validate(c) for c in checks]).text)
    for check in [c for c in checks if c["passed"] is False]:
        who = "every attack that follows gradients" if check["attack"] == "gradient" else check["attack"]
        say(f"failed: {check['name']} ({who}): {check['detail']}; {check['consequence']}")
    for check in [c for c in checks if c["passed"] is None]:
        if check["attack"] == "gradient":
            say(f"inconclusive: {check['name']}: {check['detail']}")


def guesses(rows: list[dict[str, Any]]) -> str:
    """Why the classifier is not better than guessing; empty where it is."""
    from medrobust.guessing import Guessing
    from medrobust.stats import Estimate

    found = {r["metric"]: r for r in rows if r["attack"] == "none"}
    row = found["balanced_accuracy"]
    if row["value"] is None:
        return ""
    return Guessing(Estimate(*(row[k] for k in ("value", "low", "high", "n"))), found["guessing"]["value"]).text


def headline(rows: list[dict[str, Any]], told: dict[str, Any], norm: str) -> str:
    """What is left at one size under everything that was tried, and what it took without gradients, in a line."""
    found = {(r["attack"], r["metric"]): r for r in rows if abs(r["eps"] - told["eps"]) < 1e-9}
    row = found.get(("worst", "accuracy")) or found[told["attack"], "accuracy"]
    size = f"{told['eps'] * 255:.3g}/255" if norm == "Linf" else f"{told['eps']:.3g}"
    doubt = "" if row["status"] == "ok" else " (inconclusive)"
    line = f"headline{doubt}: at {size}, {told['title']} and the other attacks leave {_cell(row)} accuracy "
    line += f"({row['low']:.0%} to {row['high']:.0%}, n = {row['n']})"
    if (noise := found.get(("noise", "accuracy"))) is not None:
        line += f", random noise of that size {_cell(noise)}"
    asked = [r for (name, metric), r in found.items() if metric.startswith("success_at:") and name != "noise"]
    if asked and (best := max(asked, key=lambda r: r["value"] or 0.0))["value"] is not None:
        line += f"; without gradients, {best['metric'].partition(':')[2]} queries an image turn {_cell(best)} "
        line += f"of {best['n']} ({best['low']:.0%} to {best['high']:.0%})"
    return line


def one_change(rows: list[dict[str, Any]], told: dict[str, Any], norm: str) -> str:
    """What one change for every image does, in a line."""
    found = {(r["attack"], r["metric"]): r for r in rows if r["attack"].startswith("universal")}
    rate = found["universal", "fooling_rate"]
    chance = max(r["value"] for (name, metric), r in found.items() if name != "universal" and metric == "fooling_rate")
    size = f"{told['eps'] * 255:.3g}/255" if norm == "Linf" else f"{told['eps']:.3g}"
    line = f"one change for every image ({told['title']}, {size}): {_cell(rate)} of {rate['n']} test images get "
    line += f"another answer ({rate['low']:.0%} to {rate['high']:.0%}), {chance:.0%} under random changes of that size"
    for (name, metric), r in found.items():
        kind, _, goal = metric.partition(":")
        if name == "universal" and kind == "targeted_success":
            random = [x["value"] or 0.0 for (n, m), x in found.items() if n != "universal" and m == metric]
            line += f"; to {goal} {_cell(r)} ({_cell(found[name, f'targeted_base:{goal}'])} before"
            line += f", {max(random):.0%} under random changes)" if random else ")"
    return line


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return ""
    return f"{row['value']:.0%}" + ("" if row["status"] == "ok" else " (inconclusive)")
