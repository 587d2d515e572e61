"""What is audited: the images, and the classifier as found, loaded or trained here."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrobust import devices, models, naming, operating_points, training
from medrobust.attacks import drawn
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.data.class_names import listed
from medrobust.errors import InputError
from medrobust.experiments import images, preflight, reference
from medrobust.experiments.admission import Admitted, admit
from medrobust.experiments.conditions import conditions
from medrobust.experiments.config import AuditSpec, digest
from medrobust.grey_scale import in_whole_levels
from medrobust.heads import head_for
from medrobust.inspection import EXAMINED, RANDOM
from medrobust.models.preprocessing import Preprocessing
from medrobust.naming import Naming
from medrobust.progress import NoProgress, Progress
from medrobust.results import Check, ResultsFile
from medrobust.run_folder import RunFolder

HEALTHY = ("normal", "healthy", "benign", "negative", "no finding", "no_finding", "control", "none")
"""Names that stand for no disease in public data sets."""


@dataclass(frozen=True)
class System:
    """A classifier and the test images it is audited on."""

    data: Dataset
    test: Dataset
    sample: Dataset
    """The test images that are attacked."""
    classifier: Classifier
    trained_here: bool
    model_digest: str
    data_digest: str
    disease_classes: tuple[int, ...]
    notes: tuple[str, ...]
    """Of the data, for the report."""
    admitted: Admitted
    """What was found out about the network before anything else."""
    class_notes: tuple[str, ...] = ()
    """What was assumed, mapped or is missing among the classes: for the terminal; ``notes`` holds them too."""
    of_findings: System | None = None
    """The same with several findings an image, where each of their sets is a class here."""

    @property
    def name(self) -> str:
        """Of the data."""
        return self.data.name

    @property
    def device(self) -> str:
        """On which the classifier computes."""
        return str(self.classifier.device)

    def conditions(self, config: AuditSpec, study: str, settings: Collection[str]) -> dict[str, object]:
        """For results.json: data, model, threat and machine. settings: fields of ``config`` that the command reads."""
        stated = conditions(config, self.of_findings or self, study, settings)
        return {**stated, "data_notes": list(self.notes), "class_notes": list(self.class_notes)}

    def named(self, results: ResultsFile, keep_names: bool) -> ResultsFile:
        """``results`` with codes for names of images, patients and files, unless ``keep_names``."""
        return Naming(self.data, keep_names).results(results)

    def with_sizes(self, config: AuditSpec) -> AuditSpec:
        """``config`` with its sizes as fractions of what a pixel may hold; of DICOM files, in whole stored levels."""
        data, unit = self.sample, config.eps_unit
        if config.norm == "l0":  # a number of values has no unit
            return config
        levels = data.attacked_levels if config.norm == "linf" else None
        if unit == "pixel" or (unit == "fraction" and data.span == 1 and levels is None):
            return config
        eps = [data.pixel_size(e, unit) for e in config.eps]
        if levels is not None:
            eps = sorted({in_whole_levels(e, levels) for e in eps})
        for e in eps:
            config.ball(e)
        return config.model_copy(update={"eps": tuple(eps), "eps_unit": "pixel"})

    @property
    def findings(self) -> dict[str, list[str]]:
        """What limits or changes the reading of every number, for results files: the same keys in all of them."""
        return {"class_notes": list(self.class_notes), **self.admitted.findings}

    def checks(self, *more: Check | None) -> list[dict[str, object]]:
        """As results files hold them: whether the outputs are in order, then those of ``more`` that were made."""
        return [c.plain() for c in (self.admitted.order, *more) if c is not None]

    def images_digest(self, part: Dataset) -> str:
        """Names exactly these images: the data's contents, and which of them."""
        return digest([self.data_digest, *part.ids])


def assemble(
    spec: AuditSpec,
    run: RunFolder | None,
    progress: Progress,
    device: str | None = None,
    *,
    compare: bool = True,
    stored: bool = False,
) -> System:
    """Load the data, then load or train the classifier; a trained one is kept in the run folder, as model/.

    run: None where nothing may be trained. The folder is made when a training begins. compare: whether decisions
    are compared with labels, for the order of the outputs, and with ``spec.reference``. stored: whether the stored
    values of DICOM files are to be attacked; else what is shown of them.
    """
    preflight.check(
        spec.model,
        weights=spec.weights,
        pretrained=spec.pretrained,
        epochs=spec.epochs,
        lr=spec.lr,
        head=spec.head,
        device=device,
        train=spec.train,
    )
    if spec.preprocessing is None and spec.size is None and (own := models.stated_preprocessing(spec.model)):
        spec = spec.model_copy(update={"preprocessing": own})
    if models.is_url(spec.model):
        _endpoint(spec)  # before images are read
    loaded = images.load(spec, progress)
    loaded = loaded if stored else loaded.shown()
    data = loaded.renamed(spec.class_map or {}, spec.leave_out or ())
    classes = data.classes if spec.classes is None else spec.classes
    _disease(spec, (*data.classes, *classes))  # before a training that a wrong name would make worthless
    classifier, trained = _classifier(spec, data, run, progress, device)
    classifier = classifier.seeing(data.surround, data.storable)
    if (levels := data.attacked_levels) is not None:
        classifier = classifier.stored(levels)
    # a training may have seen the data before names were mapped, or after it
    at_home_ = at_home(classifier, data) or at_home(classifier, loaded)
    data = data.for_network(classifier)
    disease = _disease(spec, data.classes)
    classifier = _chosen(classifier, data, spec.threshold_rule, progress)
    # images that chose the threshold are no test of it
    apart = spec.threshold_rule is not None or spec.further  # nor are those that it is trained on further
    test, notes = unseen(data, classifier, trained or at_home_ or apart)
    if spec.further and not (trained or at_home_ or data.split_given):
        notes = (*notes, SEEN)
    admitted = admit(classifier, test, progress, spec.seed, classifies=compare)
    if classifier.preprocessing is not None and classifier.preprocessing.rounds and data.bits > 8:
        progress.note(
            f"The images have {data.bits} bits, and {classifier.preprocessing.text} rounds them to 8 when it resizes, "
            "as Pillow and OpenCV do with 8-bit images; add :tensor to a resize that keeps all levels."
        )
    if compare and spec.reference is not None:
        progress.note(reference.check(spec.reference, classifier, test))
    stated = classifier.provenance.get("states_classes", Path(spec.model).is_dir())
    named = class_notes(spec, data, test, trained=trained, stated=stated)
    class_notes_ = (*named, *(n for n in data.notes if n not in loaded.notes))
    images.announce(data, progress, tuple(n for n in notes if n not in class_notes_))
    return System(
        data=data,
        admitted=admitted,
        notes=(*notes, *(n for n in class_notes_ if n not in notes)),
        class_notes=class_notes_,
        test=test,
        sample=test.sample(spec.limit, spec.seed),
        classifier=classifier,
        trained_here=trained,
        model_digest=model_digest(classifier),
        data_digest=data.digest(),
        disease_classes=disease,
    )


def given(data: Dataset, classifier: Classifier) -> System:
    """The system of a classifier that is loaded already, tested on the images that it has not seen."""
    data, classifier = data.for_network(classifier), classifier.seeing(data.surround, data.storable)
    test, notes = unseen(data, classifier, trained=False)
    return System(
        data=data,
        admitted=admit(classifier, test, NoProgress()),
        notes=notes,
        test=test,
        sample=test,
        classifier=classifier,
        trained_here=False,
        model_digest=model_digest(classifier),
        data_digest=data.digest(),
        disease_classes=(),
    )


def live(spec: AuditSpec, classifier: Classifier, data: Dataset, progress: Progress) -> System:
    """A classifier and images that are in memory, as ``spec`` attacks them."""
    if (levels := data.attacked_levels) is not None:
        classifier = classifier.stored(levels)
    system = given(data, classifier)
    images.announce(system.data, progress, system.notes)
    for sentence in system.admitted.sentences:
        progress.note(sentence)
    return dataclasses.replace(
        system,
        sample=system.test.sample(spec.limit, spec.seed),
        disease_classes=_disease(spec, system.data.classes),
        class_notes=class_notes(spec, system.data, system.test, trained=False, stated=True),
    )


def averaged(system: System, progress: Progress) -> System:
    """A random network as the mean over draws, which attacks can follow and which gives the same numbers again; any
    other system as it is."""
    sample = system.sample.most_frequent_shape().tensors(EXAMINED, 0)[0]
    classifier, inspection = drawn.averaged(system.classifier, sample), system.admitted.inspection
    if classifier is system.classifier:
        return system
    note = drawn.SENTENCE
    progress.note(note)
    doubts = tuple(d for d in inspection.doubts if d != RANDOM)
    classifier.inspection = inspection = dataclasses.replace(inspection, doubts=doubts, notes=(note, *inspection.notes))
    admitted = system.admitted._replace(inspection=inspection)
    return dataclasses.replace(system, classifier=classifier, admitted=admitted, model_digest=model_digest(classifier))


SEEN = (
    "The classifier was not trained on this split: it may have seen test images before, and what it reads of them "
    "before the training may be too good."
)


def unseen(data: Dataset, classifier: Classifier, trained: bool) -> tuple[Dataset, tuple[str, ...]]:
    """The images that the classifier was not trained on, as far as that can be known, and notes for the report.

    A classifier that comes from elsewhere has seen none of a data set without a given split: all of it is a test.
    """
    data = data.for_network(classifier)
    if trained or at_home(classifier, data) or data.split_given or naming.public(data):
        return data.split("test"), data.notes
    note = "The classifier was not trained here and the data has no split of its own: all its images are test images."
    # a split that was drawn here is not used then
    return data.by_id(), (
        note,
        *(n for n in data.notes if "were split at random" not in n and "more than one split" not in n),
    )


def at_home(classifier: Classifier, data: Dataset) -> bool:
    """Whether the classifier was trained on the training split of exactly this data."""
    training_data = classifier.provenance.get("data", {})
    return isinstance(training_data, dict) and training_data.get("digest") == data.digest()


def class_notes(
    spec: AuditSpec, data: Dataset, test: Dataset, *, trained: bool, stated: bool = False
) -> tuple[str, ...]:
    """An order of classes that was assumed, and classes of the classifier without a test image.

    stated: the classifier names its classes.
    """
    notes = []
    if not (trained or stated) and spec.classes is None:
        notes.append(
            f"The network's outputs were assumed to be in this order: {listed(data.classes)}. The network does not "
            "state it; give it with --classes."
        )
    missing = [name for name, n in zip(data.classes, test.counts, strict=True) if not n]
    if missing:
        notes.append(
            f"The classifier knows {listed(tuple(missing))}, of which there is no test image: nothing is known of how "
            f"it reads {'it' if len(missing) == 1 else 'them'}."
        )
    return tuple(notes)


def groups(part: Dataset) -> np.ndarray | None:
    """Whose images they are, for intervals; an image without a patient stands for itself."""
    if part.patients is None:
        return None
    return np.array([p or f"image {i}" for p, i in zip(part.patients, part.ids, strict=True)])


def _classifier(
    spec: AuditSpec, data: Dataset, run: RunFolder | None, progress: Progress, device: str | None
) -> tuple[Classifier, bool]:
    where = devices.find(device)
    if models.is_url(spec.model):
        return _answering(spec, data, run), False
    if models.is_delivered(spec.model):
        return _delivered(spec, data, where), False
    if Path(spec.model).is_dir():
        return _saved(spec, where), False
    train = spec.train if spec.train is not None else not (spec.weights or models.is_own(spec.model))
    if not train:
        return _as_is(spec, data, where, progress), False
    if spec.preprocessing is not None or data.fit == "none":
        raise InputError(
            f"{spec.model} is trained on images of one size: leave --preprocessing out and give --size (and --fit); "
            "preprocessing belongs to a network that is delivered with its weights"
        )
    if run is None:
        raise InputError(f"{spec.model} is not trained yet: medrobust train --out FOLDER --model {spec.model}")
    if spec.classes is not None:
        data = data.for_classes(spec.classes)
    options: Mapping[str, Any] = {k: v for k, v in (("epochs", spec.epochs), ("lr", spec.lr)) if v is not None}
    data.split("test")  # an empty one is said before hours of training, not after
    if spec.threshold is not None and not data.multilabel and len(data.classes) != 2:
        raise InputError(f"--threshold needs exactly two classes, the data has {listed(data.classes)}")
    classifier = training.fit(
        data.shown(),
        spec.model,
        seed=spec.seed,
        pretrained=spec.pretrained,
        mean=spec.mean,
        std=spec.std,
        head=spec.head,
        outputs=spec.outputs,
        output=spec.output,
        device=str(where),
        progress=progress,
        resume=run.entry("training"),
        keep=run.entry("model"),
        **options,
    )
    run.remove("training")  # only a killed training is resumed
    return _told(classifier, spec), True


def _answering(spec: AuditSpec, data: Dataset, run: RunFolder | None) -> Classifier:
    """An end-point. What it answered is kept in the run folder, where there is one."""
    for option, given in (("mean", spec.mean), ("std", spec.std), ("train", spec.train)):
        if given:
            raise InputError(f"{spec.model} takes pixels in [0, 1] and is used as it is: leave --{option} out")
    classes, head = spec.classes or data.classes, head_for(spec.head, data.multilabel)
    file = None if run is None else run.entry("answers") / "answers.sqlite"
    several = head == "multilabel"
    answers = models.KeptAnswers(_endpoint(spec), classes, file, spec.max_queries, several=several)
    classifier = Classifier(
        models.BlackBoxModel(answers, classes, several=several),
        classes,
        head=head,
        outputs=spec.outputs,
        size=input_side(data, None if spec.preprocessing is None else Preprocessing(spec.preprocessing)),
        preprocessing=spec.preprocessing,
        provenance={"architecture": spec.model, "weights": None, "notes": []},
    )
    return _told(classifier, spec)


def _endpoint(spec: AuditSpec) -> models.HttpEndpoint:
    return models.HttpEndpoint(spec.model, spec.send, spec.timeout, spec.rate, spec.allow_remote)


def _delivered(spec: AuditSpec, data: Dataset, where: torch.device) -> Classifier:
    """A network in a format of others."""
    classifier = Classifier.delivered(
        spec.model,
        spec.classes,
        otherwise=data.classes,
        weights=spec.weights,
        mean=spec.mean,
        std=spec.std,
        head=spec.head or ("multilabel" if data.multilabel else None),
        outputs=spec.outputs,
        output=spec.output,
        preprocessing=spec.preprocessing,
        channels=data.channels,
        size=input_side(data, None if spec.preprocessing is None else Preprocessing(spec.preprocessing)),
    )
    classifier.net.to(where)
    return _told(classifier, spec)


def _saved(spec: AuditSpec, where: torch.device) -> Classifier:
    """A saved classifier states its classes, head and normalisation: other ones on the command line are a mistake."""
    classifier = Classifier.load(spec.model, trust_code=spec.trust_code)
    classifier.net.to(where)
    if spec.classes is not None and spec.classes != classifier.classes:
        raise InputError(
            f"{spec.model} states its classes as {listed(classifier.classes)}, --classes says {listed(spec.classes)}; "
            "leave --classes out, and map the data's names with --map"
        )
    for name, given, stated in (
        ("head", spec.head, classifier.head.name),
        ("mean", spec.mean, classifier.mean),
        ("std", spec.std, classifier.std),
        (
            "preprocessing",
            classifier.preprocessing and spec.preprocessing,
            getattr(classifier.preprocessing, "text", ""),
        ),
    ):
        if given is not None and given != stated:
            raise InputError(f"{spec.model} states its {name} as {stated}, --{name} says {given}; leave --{name} out")
    classifier.output = classifier.output if spec.output is None else spec.output
    return _told(classifier, spec)


def _as_is(spec: AuditSpec, data: Dataset, where: torch.device, progress: Progress) -> Classifier:
    """A network with its own or given weights, audited without training."""
    classes = spec.classes or data.classes
    own = models.is_own(spec.model)
    channels = _channels(spec, data)
    head = head_for(spec.head, data.multilabel)
    side = input_side(data, None if spec.preprocessing is None else Preprocessing(spec.preprocessing))
    net = models.build(spec.model, classes=len(classes), channels=channels, size=side, head=head, run=not own)
    if isinstance(net, models.BlackBoxModel):
        net = models.BlackBoxModel(net.answer, classes, several=head == "multilabel")
    mean, std = spec.mean, spec.std
    notes: tuple[str, ...] = ()
    if spec.weights:
        weights = models.Pretrained(spec.weights)
        left_out, notes = weights.into(net, spec.model)
        if left_out:
            raise InputError(
                f"{spec.weights} has another number of classes than the {len(classes)} of the data ({left_out[0]} does "
                "not fit); to train it on this data, give it as --pretrained"
            )
        for note in notes:
            progress.note(note)
        stated = models.normalisation(spec.model, spec.weights)
        if stated is not None:
            mean, std = mean or stated[0], std or stated[1]
    if mean is None or std is None:
        # a network of one's own may normalise inside; one from timm does not
        if not own:
            raise InputError(
                f"how were the images of {spec.weights} normalised? give --mean and --std (pixels in [0, 1])"
            )
        mean, std = mean or (0.0,), std or (1.0,)
    classifier = Classifier(
        net.to(where),
        classes,
        mean=mean,
        std=std,
        head=head,
        outputs=spec.outputs or (None if own else "logits"),
        output=spec.output,
        size=side,
        preprocessing=spec.preprocessing,
        provenance={"architecture": spec.model, "weights": spec.weights, "notes": list(notes)},
    )
    return _told(classifier, spec)


def input_side(data: Dataset, preprocessing: Preprocessing | None) -> int | None:
    """Side of the square inputs that a network gets of these images; None where they are not square or differ."""
    shapes = set(data.shapes)
    if preprocessing is not None:
        shapes = {preprocessing.shape(shape) for shape in shapes}
    sides = {side for shape in shapes for side in shape}
    return sides.pop() if len(sides) == 1 else None


def _channels(spec: AuditSpec, data: Dataset) -> int:
    """Grey images into a network whose statistics or weights are for colour: it gets three channels."""
    if spec.mean and len(spec.mean) > 1:
        return len(spec.mean)
    if spec.weights:
        for value in models.Pretrained(spec.weights).state.values():
            if value.ndim == 4:
                return int(value.shape[1]) if value.shape[1] in (1, 3) else data.channels
    return data.channels


def _told(classifier: Classifier, spec: AuditSpec) -> Classifier:
    """The classifier with the operating point, kind of outputs and preprocessing that were asked for."""
    outputs, threshold = spec.outputs or classifier.outputs, operating_points.placed(spec.threshold, classifier)
    preprocessing = classifier.preprocessing or spec.preprocessing
    if (outputs, threshold, preprocessing) == (classifier.outputs, classifier.threshold, classifier.preprocessing):
        return classifier
    return classifier.at(threshold, outputs=outputs, preprocessing=preprocessing)


def _chosen(classifier: Classifier, data: Dataset, rule: str | None, progress: Progress) -> Classifier:
    """The classifier at the operating point that ``rule`` chooses on the validation images; as it is for None."""
    if rule is None:
        return classifier
    classifier, notes = operating_points.chosen(
        classifier, data.split("val"), operating_points.ThresholdRule.read(rule)
    )
    for note in notes:
        progress.note(note)
    return classifier


def model_digest(classifier: Classifier) -> str:
    """sha256 over weights and everything else that shapes an answer; the same wherever the model lies."""
    return classifier.digest()


def _disease(spec: AuditSpec, classes: tuple[str, ...]) -> tuple[int, ...]:
    """Indices of the classes that stand for a disease; empty where names do not tell."""
    healthy = healthy_classes(spec.healthy, classes)
    return tuple(i for i in range(len(classes)) if i not in healthy) if healthy else ()


def healthy_classes(named: str | None, classes: tuple[str, ...]) -> tuple[int, ...]:
    """Indices of the classes that stand for no disease; empty where neither the user nor a name says so.

    named: class names with commas between, as in "normal,benign"; None: every class with a name of HEALTHY, unless all
    have one. InputError where one is no class, or none is left for a disease.
    """
    if named is None:
        indices = tuple(i for i, c in enumerate(classes) if c.strip().lower().replace("-", " ") in HEALTHY)
        return indices if len(indices) < len(classes) else ()
    names = [named] if named in classes else [n.strip() for n in named.split(",") if n.strip()]
    for name in names:
        if name not in classes:
            raise InputError(f"--healthy {name!r} is not a class; the data has {listed(classes)}")
    if not names or len(set(names)) == len(classes):
        raise InputError(f"--healthy must name some of the classes and leave others: {listed(classes)}")
    return tuple(i for i, c in enumerate(classes) if c in names)
