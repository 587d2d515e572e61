"""The command line: parse, call, print. The only place that prints or exits.

Exit codes: 0 done; 2 the input was wrong (one line: what, where, and the mend); 130 stopped by Ctrl-C; 1 our fault.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from medrobust import __version__
from medrobust.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

# typer carries its own copy of click or imports it, by version: its base for wrong usage is found through its own name
WrongUsage: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="medrobust",
    help="How easily is a medical image classifier fooled, and what can be done about it?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Data = Annotated[
    str,
    typer.Option(help="phantom:chest|fundus|skin[@SIZE], csv:FILE, folder:DIR, or medmnist:FILE.npz|NAME[@SIZE]."),
]
Label = Annotated[str, typer.Option(help="Column of a csv table that holds the label.")]
Size = Annotated[int | None, typer.Option(help="Side in pixels to which images are resized.")]
Seed = Annotated[int, typer.Option(help="Everything random follows from it.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; the GPU where there is one.")]
Pretrained = Annotated[str | None, typer.Option(help="Weights to train further from: a file, or hub.")]
Mean = Annotated[str | None, typer.Option(help="Input mean of the weights, [0, 1] scale, e.g. 0.5,0.5,0.5.")]
Std = Annotated[str | None, typer.Option(help="Input standard deviation of the weights.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
Head = Annotated[str, typer.Option(help="softmax (an output a class) or logit (one output, two classes).")]
Out = Annotated[Path | None, typer.Option(help="Run folder; the same command on it goes on where it was.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False) -> None:
    if version:
        typer.echo(f"medrobust {__version__}")
        raise typer.Exit


@app.command()
def audit(
    data: Data = "phantom:chest",
    model: Annotated[
        str,
        typer.Option(
            help="A timm architecture (trained here), a folder saved by medrobust, or your module:function, as it is."
        ),
    ] = "resnet18",
    weights: Annotated[str | None, typer.Option(help="Weights of MODEL, audited as they are.")] = None,
    pretrained: Pretrained = None,
    train: Annotated[bool | None, typer.Option("--train/--no-train", help="Train module:function, or do not.")] = None,
    classes: Annotated[str | None, typer.Option(help="Names of the network's outputs, in order: a,b,c.")] = None,
    healthy: Annotated[str | None, typer.Option(help="The class that stands for no disease.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Operating point: probability of the second class.")] = None,
    attacks: Annotated[
        str, typer.Option(help="Names, with options after colons: fgsm,bim,pgd:steps=40:restarts=3,cw.")
    ] = "fgsm,bim,pgd,cw",
    eps: Annotated[
        str | None,
        typer.Option(help="Ascending fractions of the pixel range: 0.5/255,1/255. 0.1 to 10 grey levels by default."),
    ] = None,
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    limit: Annotated[int, typer.Option(help="How many test images are attacked, 0 for all; drawn by class.")] = 120,
    label: Label = "label",
    size: Size = None,
    channels: Annotated[int | None, typer.Option(help="1 turns colour into grey.")] = None,
    mean: Mean = None,
    std: Std = None,
    head: Head = "softmax",
    epochs: Epochs = None,
    lr: Rate = None,
    seed: Seed = 0,
    device: Device = None,
    out: Out = None,
) -> None:
    """Attack a classifier, judge, check, and leave a report that a doctor, an engineer and a reviewer can read."""
    from medrobust import report
    from medrobust.studies import ask
    from medrobust.studies import audit as run_audit

    spec = ask(
        data=data, model=model, weights=weights, pretrained=pretrained, train=train, classes=_words(classes),
        healthy=healthy, threshold=threshold, attacks=_words(attacks), eps=_eps(eps), norm=norm, label=label,
        size=size, channels=channels, mean=_numbers(mean, "--mean"), std=_numbers(std, "--std"), head=head,
        epochs=epochs, lr=lr, seed=seed,
    ).model_copy(update={"limit": _limit(limit)})  # fmt: skip
    folder = out or Path("runs") / spec.slug()
    with Bars() as bars:
        results = run_audit(spec, folder, progress=bars, device=device)
        page = report.write(folder)
    _summary(results)
    _say(f"\nreport  {page}\nnumbers {folder / 'results.csv'}")


@app.command()
def train(
    out: Annotated[Path, typer.Argument(help="Folder for the trained classifier (model.safetensors, model.json).")],
    data: Data = "phantom:chest",
    model: Annotated[str, typer.Option(help="A timm architecture, small_cnn, or module:function.")] = "resnet18",
    pretrained: Pretrained = None,
    label: Label = "label",
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    head: Head = "softmax",
    epochs: Epochs = None,
    lr: Rate = None,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Train or fine-tune a classifier; killed, the same command goes on."""
    from medrobust import data as data_room
    from medrobust import devices, training
    from medrobust.studies.store import writing

    where = str(devices.find(device))

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    images = data_room.load(data, size=size, label=label, seed=seed)
    options: dict[str, Any] = {k: v for k, v in (("epochs", epochs), ("lr", lr)) if v is not None}
    with Bars() as bars, writing(out):
        classifier = training.fit(
            images, model, seed=seed, pretrained=pretrained, mean=_numbers(mean, "--mean"), std=_numbers(std, "--std"),
            head=head, device=where, progress=bars, resume=out / "training", **options,
        )  # fmt: skip
        classifier.save(out)
        probability, labels = training.evaluate(classifier, images.split("val"))
    scores = training.score(probability, labels)
    _say(f"validation balanced accuracy {scores.balanced_accuracy:.1%}, AUROC {scores.auroc:.3f}\nmodel {out}")


@app.command()
def attack(
    model: Annotated[Path, typer.Argument(help="Folder saved by medrobust.")],
    data: Data = "phantom:chest",
    attacks: Annotated[str, typer.Option(help="Names, with options after colons: pgd:steps=40,fmn.")] = "pgd",
    eps: Annotated[str | None, typer.Option(help="Ascending fractions of the pixel range: 0.5/255,1/255.")] = None,
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    limit: Annotated[int, typer.Option(help="How many test images are attacked, 0 for all.")] = 200,
    label: Label = "label",
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Accuracy against epsilon of a saved classifier, printed; nothing is written."""
    from medrobust.attacks import sweep
    from medrobust.progress import NoProgress
    from medrobust.studies import ask, attack_named
    from medrobust.studies.subject import assemble, groups
    from medrobust.threat import Untargeted

    spec = ask(data=data, model=str(model), attacks=_words(attacks), eps=_eps(eps), norm=norm, label=label, seed=seed)
    spec = spec.model_copy(update={"limit": _limit(limit)})
    if not model.is_dir():
        raise InputError(f"{model} is not a folder; give one that medrobust train or audit saved")
    subject = assemble(spec, model, NoProgress(), device)
    images, labels = subject.sample.tensors()
    curves = {}
    with Bars() as bars:
        for name in spec.attacks:
            bars.start(name, len(images))
            curves[name] = sweep(
                attack_named(name), subject.classifier, images, Untargeted(labels), spec.ball, spec.eps, seed=seed,
                ids=subject.sample.ids, groups=_listed(groups(subject.sample)), advance=bars.advance,
            )  # fmt: skip
            bars.stop()
    rows = [[f"{e * 255:.3g}/255", *(_percent(c.accuracy[i]) for c in curves.values())] for i, e in enumerate(spec.eps)]
    _table(["eps", *curves], rows, f"Accuracy under attack, n = {len(images)}, 95 % interval")


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A run folder that holds results.json.")]) -> None:
    """Write report.html, results.csv and tables.tex again from a finished run."""
    from medrobust import report as report_room

    _say(str(report_room.write(folder)))


@app.command()
def doctor() -> None:
    """What this installation can do: versions, devices, optional extras."""
    import importlib.util
    import os

    import torch

    from medrobust.studies.versions import versions

    rows = [[name, version] for name, version in versions().items()]
    rows.append(["device", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU only"])
    rows.append(["cores", f"{os.cpu_count()}, torch uses {torch.get_num_threads()} threads"])
    for extra, module in (("medmnist", "medmnist"), ("peers (ART)", "art"), ("peers (foolbox)", "foolbox")):
        there = importlib.util.find_spec(module) is not None
        rows.append([f"extra {extra}", "installed" if there else "not installed (optional)"])
    _table(["part", "found"], rows, "medrobust doctor")


class Bars:
    """Progress with time left on stderr; a plain line each where that is not a terminal."""

    def __init__(self) -> None:
        self._bars: RichProgress | None = None
        self._task: Any = None

    def __enter__(self) -> Bars:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.table import Column

            self._bars = Progress(
                TextColumn("{task.description}", table_column=Column(no_wrap=True)), BarColumn(bar_width=12),
                MofNCompleteColumn(), TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                TextColumn("{task.fields[shown]}"), console=Console(stderr=True),
            )  # fmt: skip
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def start(self, name: str, total: int) -> None:
        if self._bars is None:
            print(f"{name} ({total})", file=sys.stderr, flush=True)
        else:
            self._task = self._bars.add_task(name, total=total, shown="")

    def advance(self, n: int = 1, **shown: object) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=n)
            if shown:
                words = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
                self._bars.update(self._task, shown="  ".join(words))

    def stop(self) -> None:
        if self._bars is not None and self._task is not None:
            # what was shown beside a finished bar would take the room of the next one's time left
            self._bars.update(self._task, shown="")
            self._bars.stop_task(self._task)
            self._task = None


def _summary(results: dict[str, Any]) -> None:
    """The few numbers that a person at a terminal wants first."""
    rows, told = results["rows"], results["conditions"]
    clean = next(r for r in rows if r["attack"] == "none" and r["metric"] == "accuracy")
    held = [r for r in rows if r["metric"] == "accuracy" and r["attack"] in told["attacks"]]
    levels = sorted({r["eps"] for r in held})
    near = [e for e in levels if any(abs(e * 255 - g) < 0.02 for g in (0.1, 0.3, 0.5, 1, 2, 4, 8))]
    if len(levels) <= 8 or not near:
        near = levels[:8]
    table = []
    for name, about in told["attacks"].items():
        by_eps = {r["eps"]: r for r in held if r["attack"] == name}
        table.append([about["title"], *(_cell(by_eps.get(e)) for e in near)])
    noise = {r["eps"]: r for r in rows if r["metric"] == "accuracy" and r["attack"] == "noise"}
    table.append(["Random ± eps noise", *(_cell(noise.get(e)) for e in near)])
    title = (
        f"Accuracy on {told['n_attacked']} test images under attack "
        f"(clean, all {told['n_test']}: {clean['value']:.1%}, {clean['low']:.1%} to {clean['high']:.1%})"
    )
    _table(
        ["attack \\ eps", *(f"{e * 255:.3g}/255" if told["norm"] == "Linf" else f"{e:.3g}" for e in near)], table, title
    )
    failed = [c for c in results["checks"] if c["passed"] is False]
    _say(f"{len(results['checks']) - len(failed)} of {len(results['checks'])} sanity checks passed")
    for check in failed:
        _say(f"failed: {check['name']} ({check['attack']}): {check['detail']}; {check['consequence']}")
    if told["left_out"]:
        _say(f"{len(told['left_out'])} images could not be read and were left out: see the report")


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return ""
    return f"{row['value']:.0%}" + ("" if row["status"] == "ok" else " (inconclusive)")


def _percent(estimate: Any) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def _table(head: list[str], rows: list[list[str]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _say(text: str) -> None:
    print(text, flush=True)


def _words(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(w.strip() for w in text.split(",") if w.strip())


def _eps(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    from medrobust.studies import parse_eps

    return parse_eps(text)


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(w) for w in text.split(","))
    except ValueError:
        raise InputError(f"{option} wants numbers with commas between, got {text!r}") from None


def _listed(column: Any) -> list[str] | None:
    return None if column is None else [str(v) for v in column]


def _limit(limit: int) -> int | None:
    if limit < 0:
        raise InputError(f"--limit must not be negative, got {limit}; 0 attacks every test image")
    return limit or None


def main() -> NoReturn:
    """Run the command line and exit with the code that says what happened."""
    code = 0
    try:
        code = app(standalone_mode=False) or 0
        if code == STOPPED:  # newer typer turns Ctrl-C into this code
            raise KeyboardInterrupt
    except typer.Exit as error:
        code = error.exit_code
    except WrongUsage as error:
        print(f"medrobust: {error.format_message()}; see medrobust --help", file=sys.stderr)
        code = 2
    except InputError as error:
        print(f"medrobust: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("\nmedrobust: stopped; what is finished is kept, the same command goes on from there", file=sys.stderr)
        sys.exit(STOPPED)
    except OSError as error:
        # a disk that fills up or goes away in the middle is nobody's bug
        print(f"medrobust: {error.strerror or error}: {error.filename or 'no file named'}", file=sys.stderr)
        sys.exit(2)
    sys.exit(code)


if __name__ == "__main__":
    main()
