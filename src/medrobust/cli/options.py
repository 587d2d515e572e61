"""Options that several commands share: each is declared, and explained, once.

A command takes a group of them as one keyword of its class (``images: ImageOptions``); ``expanded`` turns the keyword
into the options of that class.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_type_hints

import typer

from medrobust import manifest
from medrobust.cli.criteria import CriteriaOptions
from medrobust.cli.text import class_map, numbers, say, silenced, words
from medrobust.formats import TITLES

if TYPE_CHECKING:
    from medrobust.runner.executors import Executor

Seed = Annotated[int, typer.Option(help="Everything random follows from it.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; the GPU where there is one.")]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Import and run code that a saved model names as its network.")
]
Classes = Annotated[str | None, typer.Option(help="Names of the network's outputs, in order: a,b,c.")]
Mean = Annotated[str | None, typer.Option(help="Input mean of the weights, [0, 1] scale, e.g. 0.5,0.5,0.5.")]
Std = Annotated[str | None, typer.Option(help="Input standard deviation of the weights.")]
Head = Annotated[
    str | None,
    typer.Option(
        help="softmax (an output a class), logit (one output, two classes) or multilabel (an output a finding); "
        "by the labels if not given."
    ),
]
ThresholdRule = Annotated[
    str | None,
    typer.Option(help="Thresholds chosen on validation images: youden, f1, sensitivity=0.9 or specificity=0.9."),
]
Outputs = Annotated[str | None, typer.Option(help="logits or probabilities: what outputs are that all lie in [0, 1].")]
PreprocessingText = Annotated[
    str | None,
    typer.Option(
        "--preprocessing",
        help="Steps from images of any size to the network's input: resize=256,crop=224; also pad, window=LOW:HIGH, "
        "percentiles=1:99, scale=-1024:1024. Images then keep their own size, and are attacked in it.",
    ),
]
Output = Annotated[
    str | None, typer.Option(help="Which entry of a tuple, dict or data class holds the outputs: a name or a position.")
]
Pretrained = Annotated[str | None, typer.Option(help="Weights to train further from: a file, or hub.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
Healthy = Annotated[
    str | None,
    typer.Option(help="Classes that stand for no disease, commas between: normal,benign; by their names if not given."),
]
KeepNames = Annotated[
    bool,
    typer.Option(
        "--keep-names", help="Write names of images, patients and files as they are, not codes (medrobust names)."
    ),
]
Operator = Annotated[
    str, typer.Option(metavar="NAME", help="Who runs it: written into results and report. No name if not given.")
]
Out = Annotated[Path | None, typer.Option(help="Run folder; the same command on it goes on where it was.")]
RunOut = Annotated[Path, typer.Option(help="Run folder; the same command on it goes on where it was.")]

SIZES = (
    "Ascending sizes: fractions of what is shown (0.5/255,1/255), stored grey levels (1lv,4lv), or Hounsfield units "
    "of CT (5hu)."
)
MODEL = (
    "A folder saved by medrobust, an architecture with --weights, your module:function, FILE.onnx, FILE.pt2, a "
    "TorchScript file, a folder of Hugging Face or a MONAI bundle, monai:NAME or xrv:NAME with --weights, or http://127.0.0.1:PORT/PATH"
)
"""What every command takes as its network."""


class Reading(TypedDict):
    """Arguments of ``data.load``."""

    label: str
    findings: tuple[str, ...] | None
    separator: str | None
    patient: str | None
    fit: str | None
    window: str
    frames: str
    size: int | None
    channels: int | None


class ImageFields(Reading):
    """Fields of the config that say which images, and how their classes are named."""

    data: str
    class_map: dict[str, str] | None
    leave_out: tuple[str, ...] | None


class RecipeOptions(TypedDict, total=False):
    """Arguments of ``training.fit``."""

    pretrained: str
    epochs: int
    lr: float


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Which images, and how they and their labels are read."""

    data: Annotated[
        str,
        typer.Option(
            help="phantom:chest|fundus|skin|chest-findings[@SIZE], csv:FILE, folder:DIR, dicom:DIR, nifti:DIR, "
            f"or medmnist:FILE.npz|NAME[@SIZE]. Files may be {TITLES}."
        ),
    ] = "phantom:chest"
    label: Annotated[
        str, typer.Option(help="Column of a csv table that holds the label; of dicom:, an element: BodyPartExamined.")
    ] = "label"
    findings: Annotated[
        str | None, typer.Option(help="Columns of a csv table, one a finding: 1, 0, or -1 or nothing where unknown.")
    ] = None
    separator: Annotated[
        str | None,
        typer.Option(
            help="Between the findings of one label: '|'. none: a label is one class. | and ; are recognised."
        ),
    ] = None
    patient: Annotated[
        str | None,
        typer.Option(
            help="Column of a csv table that names the patients, or none; found by its usual names. Of DICOM files: "
            "patient, study or series."
        ),
    ] = None
    fit: Annotated[
        str | None,
        typer.Option(
            help="How images that are not square become square: stretch (by default), crop, pad (black) or none."
        ),
    ] = None
    window: Annotated[
        str, typer.Option(help="Of DICOM files: auto (as each states it), none (all its values) or CENTRE,WIDTH.")
    ] = "auto"
    frames: Annotated[
        str,
        typer.Option(
            help="Of DICOM files with several: one (the first), middle, all or a number; of NIfTI volumes slices (one: "
            "the middle)."
        ),
    ] = "one"
    size: Annotated[int | None, typer.Option(help="Side in pixels to which images are resized.")] = None
    channels: Annotated[int | None, typer.Option(help="1 turns colour into grey.")] = None
    map_: Annotated[
        str | None,
        typer.Option("--map", help="Class names of the data as the network calls them: neg=normal,pos=pneumonia."),
    ] = None
    leave_out: Annotated[
        str | None, typer.Option("--leave-out", help="Classes of the data whose images are not used: a,b.")
    ] = None

    @property
    def read(self) -> Reading:
        """As ``data.load`` takes them, without labels changed."""
        return {
            "label": self.label,
            "findings": words(self.findings),
            "separator": self.separator,
            "patient": self.patient,
            "fit": self.fit,
            "window": self.window,
            "frames": self.frames,
            "size": self.size,
            "channels": self.channels,
        }

    @property
    def renaming(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """As ``Dataset.renamed`` takes it."""
        return class_map(self.map_) or {}, words(self.leave_out) or ()

    @property
    def fields(self) -> ImageFields:
        """As ``experiments.ask`` takes them."""
        classes, leave_out = class_map(self.map_), words(self.leave_out)
        return {"data": self.data, **self.read, "class_map": classes, "leave_out": leave_out}


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """How a network is loaded, called, and what its outputs mean."""

    weights: Annotated[str | None, typer.Option(help="Weights of MODEL, used as they are.")] = None
    classes: Classes = None
    threshold: Annotated[
        str | None,
        typer.Option(help="Operating point: probability of the second class, or of findings: 0.3 or effusion=0.3,…"),
    ] = None
    threshold_rule: ThresholdRule = None
    mean: Mean = None
    std: Std = None
    head: Head = None
    outputs: Outputs = None
    preprocessing: PreprocessingText = None
    reference: Annotated[
        str | None,
        typer.Option(help="CSV table (file, prediction) of your own pipeline's decisions: stops where one differs."),
    ] = None
    output: Output = None
    send: Annotated[str, typer.Option(help="How a MODEL of http://… gets images: npy (float32) or png (8 bits).")] = (
        "npy"
    )
    timeout: Annotated[float, typer.Option(help="Seconds for one request to a MODEL of http://…")] = 30.0
    rate: Annotated[float | None, typer.Option(help="Most images a second that a MODEL of http://… is sent.")] = None
    max_queries: Annotated[
        int | None, typer.Option(help="Most images in all that a MODEL of http://… is sent; answers are kept in --out.")
    ] = None
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Send images to a MODEL of http://… that is not on this machine.")
    ] = False
    trust_code: TrustCode = False

    @property
    def fields(self) -> Mapping[str, object]:
        """As ``experiments.ask`` takes them."""
        read: dict[str, object] = {"classes": words(self.classes)}
        read |= {"mean": numbers(self.mean, "--mean"), "std": numbers(self.std, "--std")}
        if self.threshold is not None:
            from medrobust import operating_points

            read["threshold"] = operating_points.read(self.threshold)
        return dataclasses.asdict(self) | read


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a network is trained where it has no weights."""

    pretrained: Pretrained = None
    epochs: Epochs = None
    lr: Rate = None

    @property
    def fields(self) -> Mapping[str, object]:
        """As ``experiments.ask`` takes them."""
        return dataclasses.asdict(self)

    @property
    def recipe(self) -> RecipeOptions:
        """As ``training.fit`` takes them: those that were given."""
        recipe: RecipeOptions = {}
        if self.pretrained is not None:
            recipe["pretrained"] = self.pretrained
        if self.epochs is not None:
            recipe["epochs"] = self.epochs
        if self.lr is not None:
            recipe["lr"] = self.lr
        return recipe


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Where pieces of work are computed: in this process, in workers of this machine, or on a cluster."""

    workers: Annotated[int, typer.Option(help="Processes of this machine; 0 computes in this one.")] = 0
    threads: Annotated[int | None, typer.Option(help="Threads of a worker; the cores shared out.")] = None
    scheduler: Annotated[
        str | None,
        typer.Option(help="A dask scheduler whose workers compute: tcp://127.0.0.1:PORT or tls://HOST:PORT."),
    ] = None
    slurm: Annotated[
        str | None,
        typer.Option(
            help="Workers as SLURM jobs: partition=gpu,gpus=1,cpus=4,memory=16GB,time=04:00:00,jobs=8,"
            "interface=ib0. Encrypted with TLS, except with interface=lo."
        ),
    ] = None
    tls: Annotated[
        Path | None, typer.Option(help="Folder of ca.pem, cert.pem and key.pem, for a scheduler at tls://… or --slurm.")
    ] = None

    @property
    def elsewhere(self) -> bool:
        """Whether anything is computed outside this process."""
        return bool(self.workers) or self.scheduler is not None or self.slurm is not None

    def prepare(self) -> None:
        """InputError where the options contradict each other. Workers of this machine begin to import."""
        from medrobust.runner import executors

        executors.check(self.workers, self.scheduler, self.slurm, self.tls)
        executors.prepare(self.workers, self.threads)

    def executor(self, out: Path) -> Executor:
        """What computes the cells of the run folder ``out``; close it in the end."""
        from medrobust.runner import executors

        return executors.make(out, self.workers, self.threads, self.scheduler, self.slurm, self.tls)


@dataclass(frozen=True, kw_only=True)
class PrivacyOptions:
    """What of data and people a run folder and its report show."""

    keep_names: KeepNames = False
    operator: Operator = ""
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Show example images in the report.")] = (
        True
    )


Json = Annotated[bool, typer.Option("--json", help="Print the results file instead of tables: JSON on stdout alone.")]
AS_JSON = "as_json"
Finished = tuple[Path, int]
"""The path of the JSON that a command wrote, and its exit code."""
SIGN = "sign"
Sign = Annotated[
    Path | None,
    typer.Option(metavar="KEY", help="Sign the run's manifest with this Ed25519 private key (PEM or OpenSSH)."),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print no tables and no progress; notes and errors go to stderr as ever.")
]

GROUPS = (ImageOptions, NetworkOptions, TrainingOptions, ComputeOptions, PrivacyOptions, CriteriaOptions)


def _signer(key: Path) -> Callable[[Path], object]:
    """Signs the manifest of a run folder with the private key in that file, which is read now."""
    from medrobust import signing

    return functools.partial(signing.sign, key=signing.private_key(key))


def _signed(folder: object) -> bytes:
    """The manifest of a run folder that has a signature; empty for others."""
    signature, file = (Path(str(folder)) / name for name in (manifest.SIGNATURE, manifest.FILE))
    return file.read_bytes() if signature.is_file() and file.is_file() else b""


def expanded(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same command with an option for every field of every group that it takes.

    Every command gets --quiet, and one that returns the path of the JSON that it wrote into a run folder --json and
    --sign. It may return an exit code beside the path.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if hint in GROUPS}
    writes = hints.get("return") in (Path, Finished)
    parameters: list[inspect.Parameter] = []
    for given in inspect.signature(command).parameters.values():
        if given.name not in groups:
            parameters.append(given.replace(annotation=hints[given.name], kind=given.KEYWORD_ONLY))
            continue
        kinds = get_type_hints(groups[given.name], include_extras=True)
        parameters += [
            given.replace(name=f.name, default=f.default, annotation=kinds[f.name])
            for f in dataclasses.fields(groups[given.name])
        ]

    if writes:
        parameters.append(inspect.Parameter(SIGN, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Sign))
        parameters.append(inspect.Parameter(AS_JSON, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json))

    parameters.append(inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet))

    def call(**values: Any) -> None:
        as_json, key, quiet = values.pop(AS_JSON, False), values.pop(SIGN, None), values.pop("quiet")
        for name, group in groups.items():
            values[name] = group(**{f.name: values.pop(f.name) for f in dataclasses.fields(group)})
        signer = None if key is None else _signer(key)  # before anything is computed
        signed = _signed(values.get("folder"))
        with silenced(as_json or quiet, progress=quiet):
            returned = command(**values)
            written, exit_code = returned if isinstance(returned, tuple) else (returned, 0)
            if writes and signer is None and signed and _signed(written.parent) != signed:
                say("the run is no longer as it was signed; --sign KEY signs it anew")
        if signer is not None:
            signer(written.parent)
        if as_json:
            print(written.read_text(encoding="utf-8").rstrip(), flush=True)
        if exit_code:
            raise typer.Exit(exit_code)

    functools.update_wrapper(call, command)
    del call.__wrapped__  # type: ignore[attr-defined]  # its signature is not the one to read
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call
