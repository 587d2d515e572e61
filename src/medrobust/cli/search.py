"""`medrobust search`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.choices import OPTIMISERS
from medrobust.cli.command_line import command_line
from medrobust.cli.doubts import warn
from medrobust.cli.options import Healthy, ImageOptions, KeepNames, Mean, Outputs, RunOut, Seed, Std, TrustCode
from medrobust.cli.text import numbers, say, table, words
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.experiments.search_system import Images

TABLE = "breast-cancer"


def search(
    *,
    images: ImageOptions,
    features: Annotated[
        str, typer.Option(help="deep (of --model), wavelet, texture, hu, or handmade (these three).")
    ] = "wavelet",
    model: Annotated[
        str | None, typer.Option(help="For deep features: a folder saved by medrobust, or an architecture.")
    ] = None,
    pretrained: Annotated[str | None, typer.Option(help="Weights of that architecture: a file.")] = None,
    mean: Mean = None,
    std: Std = None,
    outputs: Outputs = None,
    what: Annotated[str, typer.Option(help="Names: weights,masks,hyper,threshold; or all.")] = "weights",
    methods: Annotated[
        str,
        typer.Option(
            help=f"Names of {OPTIMISERS}; NAME+adam for gradient descent after it, or all; baselines are added."
        ),
    ] = "random,ga,pso,de,cma-es,gwo,woa,gwo+adam",
    budget: Annotated[
        int,
        typer.Option(
            help="Evaluations of each method, a gradient counted as three; masks get a tenth of it, "
            "hyper-parameters 1/150, thresholds 1/30."
        ),
    ] = 6000,
    seeds: Annotated[int, typer.Option(help="How often folds and searches are drawn anew.")] = 20,
    folds: Annotated[int, typer.Option(help="Of the outer cross-validation.")] = 3,
    limit: Annotated[int, typer.Option(help="How many images are compared on, 0 for all.")] = 400,
    healthy: Healthy = None,
    attacked: Annotated[
        int, typer.Option(help="Attack evolved and gradient-trained networks on so many test images; 0: none.")
    ] = 0,
    trust_code: TrustCode = False,
    seed: Seed = 0,
    keep_names: KeepNames = False,
    out: RunOut = Path("runs/search"),
) -> Path:
    """Train networks by meta-heuristic search and by gradients under one protocol, and say which are better.

    With --data breast-cancer on scikit-learn's table of 30 features, without images.
    """
    from medrobust import private_names, report
    from medrobust.experiments.accuracy_matched import AccuracyMatchedConfig
    from medrobust.experiments.accuracy_matched import attacked as under_attack
    from medrobust.experiments.images import announce
    from medrobust.experiments.search import Ask, Searching
    from medrobust.experiments.search_networks import kept
    from medrobust.experiments.search_system import assemble
    from medrobust.experiments.search_system import table as features_of
    from medrobust.run_folder import RunFolder
    from medrobust.run_info import with_run
    from medrobust.store import Store, counting
    from medrobust.training.evolved import QUESTIONS, breast_cancer

    for name, value, least in (("--budget", budget, 1), ("--limit", limit, 0), ("--attacked", attacked, 0)):
        if value < least:
            raise InputError(f"{name} must be {least} or more, got {value}")
    ask = Ask(
        questions=tuple(QUESTIONS) if what == "all" else words(what) or (),
        methods=words(methods) or (),
        budget=budget,
        seeds=seeds,
        folds=folds,
    )
    data = images.data
    if data == TABLE and attacked:
        raise InputError(f"{TABLE} is a table without images: there is nothing to attack")
    subject: Images | None = None
    with Bars() as bars, counting() as tally, RunFolder(out, "search") as run:
        if data == TABLE:
            run.begin()
            searched, about = breast_cancer(), {"data": TABLE, "features_kind": "as measured", "left": "", "notes": []}
        else:
            subject = assemble(
                features=features,
                model=model,
                pretrained=pretrained,
                mean=numbers(mean, "--mean"),
                std=numbers(std, "--std"),
                outputs=outputs,
                healthy=healthy,
                limit=limit or None,
                seed=seed,
                trust_code=trust_code,
                progress=bars,
                **images.fields,
            )
            run.begin()
            announce(subject.data, bars)
            searched, about = features_of(subject, subject.compared, Store(out), bars), subject.about
        results, times = Searching(ask, out, searched, about, bars).run()
        results |= {} if subject is None else subject.findings
        paths: dict[str, dict[str, Path]] = {}
        if subject is not None:
            for question in ask.questions:
                names = ask.names(question)
                folder, budgeted = run.entry("models"), ask.evaluations(question)
                paths[question] = kept(subject, question, names, budgeted, folder, Store(out), bars)
        if subject is not None and attacked:
            results["robustness"] = under_attack(
                AccuracyMatchedConfig(images=attacked, budget=budget), subject, Store(out), bars
            )
        if not keep_names:
            for name in ("data", "name"):
                results["facts"][name] = private_names.data_name(results["facts"][name])
        results = with_run(out, "results.json", results, command_line())
        run.write_text("results.json", json.dumps(results, indent=1, sort_keys=True, allow_nan=False))
        run.write_text("times.json", json.dumps(times, indent=1, sort_keys=True))
    from medrobust.results import Check

    page = report.write_search(out)
    warn([Check.read(check) for check in results.get("checks", ())])
    for question in ask.questions:
        summary(results, times, question)
    say(tally.words())
    say(f"\nreport  {page}\nnumbers {out / 'results.csv'}")
    for question, found in paths.items():
        say(f"networks {out / 'models' / question}/ ({', '.join(found)})")
    if paths:
        first = next(iter(paths))
        kinds = results["questions"][first]["methods"]
        shown = next((n for n in paths[first] if kinds[n]["kind"] == "search"), next(iter(paths[first])))
        say(f"audit one of them: medrobust audit --data {data} --model {paths[first][shown]}")
    return out / "results.json"


def summary(results: dict[str, Any], times: dict[str, Any], question: str) -> None:
    """Best first: balanced accuracy, the difference to the reference, and what it took."""
    from medrobust.report.search_words import TITLES, verdict

    told = results["questions"][question]
    rows = {(r["method"], r["metric"]): r for r in results["rows"] if r["question"] == question}
    names = sorted(told["methods"], key=lambda n: -rows[n, "balanced_accuracy"]["value"])
    lines = []
    for name in names:
        against = told["against"].get(name)
        apart = "reference" if against is None else f"{100 * against['difference']:+.1f} (p {against['p']:.2g})"
        spent = told["methods"][name]["evaluations"]
        lines.append(
            [
                name,
                _cell(rows[name, "balanced_accuracy"]),
                apart,
                "" if spent is None else str(spent),
                f"{times[question][name]['seconds']:.2f}",
            ]
        )
    head = ["method", "balanced accuracy, % (95 %)", f"less {told['reference']}, points", "evaluations", "s a network"]
    facts = results["facts"]
    table(head, lines, f"{TITLES[question]}: median of {facts['seeds']} seeds, {facts['n']} images of {facts['name']}")
    say(verdict(results, question))


def _cell(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return f"{100 * row['value']:.1f} (no interval)"
    value, low, high = (f"{100 * row[k]:.1f}" for k in ("value", "low", "high"))
    return f"{value} ({low}-{high})"
