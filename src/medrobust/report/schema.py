"""The parts of results.json that the report reads beside rows and checks: their fields, and their types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from medrobust.grey_scale import EIGHT_BITS, GreyScale
from medrobust.report.words import listing


class Stated(BaseModel):
    """A part of a file; fields that are not known here are left alone."""

    # fields named model_… are the schema's own
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class AttackInfo(Stated):
    title: str
    settings: str = ""
    source: str = ""


class LeftOutEntry(Stated):
    file: str
    reason: str


class Unmeasured(Stated):
    """What could not be measured, and why."""

    part: str
    why: str


class UniversalGoal(Stated):
    """One universal perturbation. target: the class it goes for; None: away from the clean answer."""

    target: int | None = None
    nonzero: bool = True
    why: str = ""
    """Why it did not leave zero."""
    legal: bool = True
    gradients: int = 0


class UniversalExample(Stated):
    target: int | None = None
    id: str
    label: int | list[int]
    before: int | list[int]
    after: int | list[int]


class UniversalInfo(Stated):
    """How one change for every image was made. name: of its rows.

    zeta: its size as a share of an average image, where it was given so.
    """

    name: str = ""
    title: str
    source: str = ""
    settings: Mapping[str, object] = {}
    zeta: float | None = None
    eps: float
    bits: int = 8
    made_from: str = ""
    n_made: int
    n_judged: int
    controls: list[str] = []
    goals: list[UniversalGoal] = []
    examples: list[UniversalExample] = []


class MethodInfo(Stated):
    title: str = ""


class StillZero(Stated):
    """Perturbations of a round that did not leave zero, of those of its pool."""

    round: int
    zero: int
    why: str = ""


class DefenceInfo(Stated):
    """How a classifier was hardened. pool: perturbations made after each of the rounds."""

    title: str
    source: str = ""
    method: MethodInfo = MethodInfo()
    target: int | None = None
    zeta: float | None = None
    eps: float
    still: list[StillZero] = []
    n_judged: int
    pool: int
    rounds: list[int] = []
    verdict: str
    protects: bool = False
    """Whether fresh perturbations do no more than random ones in the end."""
    stopped: str = ""
    guesses: str = ""


class HardeningInfo(Stated):
    """How a classifier was trained adversarially. epochs: planned. history: by epoch, scores on validation images,
    untouched and attacked. sizes: at which both classifiers were attacked."""

    method: str
    title: str
    source: str = ""
    settings: Mapping[str, object] = {}
    eps: float
    sizes: list[float] = Field(min_length=1)
    epochs: int
    epoch_kept: int
    minutes: float | None = None
    history: list[Mapping[str, float]] = []


class InputDefenceInfo(Stated):
    """kind: "input" of a filter before the classifier, "guard" of a detector, "classifier" of another classifier."""

    title: str
    source: str = ""
    settings: Mapping[str, object] = {}
    random: bool = False
    kind: str = "input"


class InputDefencesInfo(Stated):
    """Defences that were tried, by name, and at which sizes. surrogate: what images were transferred from, in words;
    empty where none were. referrals: share of the validation images that a guard refers."""

    eps: list[float] = Field(min_length=1)
    surrogate: str = ""
    referrals: float = 0.0
    defences: dict[str, InputDefenceInfo] = Field(min_length=1)


class DetectorInfo(Stated):
    title: str
    source: str = ""


class DetectionSize(Stated):
    """How many images there were at one size of attack. n_held_out: those that thresholds were set on."""

    eps: float
    n_clean: int = 0
    n_attacked: dict[str, int] = {}
    n_held_out: int = 0
    pooled: bool = False


class DetectionInfo(Stated):
    """How detectors were tried. guarded: the attack that sentences are about; detectors, attacks: by name."""

    detectors: dict[str, DetectorInfo] = Field(min_length=1)
    attacks: dict[str, AttackInfo] = Field(min_length=1)
    guarded: str
    layers: list[str] = []
    fprs: list[float] = []
    prevalence: float = 0.001
    sizes: list[DetectionSize] = []

    def title(self, attack: str) -> str:
        return self.attacks[attack].title if attack in self.attacks else attack


class EvasionInfo(Stated):
    """How detectors were evaded. name, attack: of the rows of the evasion and of the attack that knows no detector."""

    name: str
    attack: str
    evasions: dict[str, AttackInfo] = Field(min_length=1)
    n: int = 0
    eps: float = 0.0

    @property
    def title(self) -> str:
        """ "Selective PGD", or "the strongest of …"."""
        titles = [e.title for e in self.evasions.values()]
        return titles[0] if len(titles) == 1 else f"the strongest of {listing(titles)}"


class MeasureInfo(Stated):
    title: str
    unit: str = ""
    source: str = ""


class GalleryInfo(Stated):
    """Images whose maps are shown: true class, decision after the attack, and whether the attack turned it."""

    ids: list[str] = []
    label: list[int] = []
    after: list[int] = []
    reached: list[bool] = []
    moved: list[list[str]] = []
    """Of sets of findings, those that came (+) and went (−)."""


class ExplainedInfo(Stated):
    """One classifier whose images are explained. cam_layer: of Grad-CAM. grid: of the landscape, fractions of the
    pixel range. reached: images that the attack turned, of n; surfaces: those with a landscape."""

    data: str = ""
    model: str = ""
    classes: list[str] = []
    size: int | None = None
    channels: int | None = None
    architecture: str | None = None
    parameters: int | None = None
    model_digest: str = ""
    doubts: list[str] = []
    one_a_patient: bool = False
    attack: str
    attack_title: str
    eps: float
    norm: str = "linf"
    second: str | None = None
    grid: list[float] = []
    seed: int | None = None
    measures: dict[str, MeasureInfo] = {}
    notes: list[str] = []
    findings: list[str] = []
    """Those with masks of their own."""
    n: int = 0
    n_test: int | None = None
    accuracy: float | None = None
    guesses: str = ""
    reached: int = 0
    layers: list[str] = []
    middle: str = ""
    cam_layer: str = ""
    surfaces: int = 0
    gallery: GalleryInfo = GalleryInfo()
    ids: list[str] = []


class SearchInfo(Stated):
    """The table that was searched. counts: by class. patients: None where not known. note: why these images."""

    n: int
    groups: int = 0
    patients: int | None = None
    counts: list[int] = []
    features: int
    features_kind: str = ""
    source: str | None = None
    note: str = ""
    limit: int | None = None
    seeds: int
    folds: int


class SearchMethodInfo(Stated):
    """kind: "baseline", "random", "search", or "both" (a search, then gradient descent)."""

    title: str
    kind: str


class SearchedInfo(Stated):
    """One question. budget: evaluations a network. reference_guesses: why it is no better than guessing, else empty."""

    budget: int
    reference: str
    reference_guesses: str = ""
    methods: dict[str, SearchMethodInfo] = Field(min_length=1)


class AttackedNetworksInfo(Stated):
    """Networks under attack. n: images that are attacked; matching: images that accuracy is matched on."""

    attack: str
    settings: str = ""
    n: int
    matching: int
    methods: list[str] = []
    seeds: int


class HeadlineInfo(Stated):
    """The ensemble whose accuracy is the headline number. attack: what its rows stand under."""

    attack: str
    title: str
    settings: str = ""
    source: str = ""
    eps: float


class FindingsInfo(Stated):
    """How findings were hidden and invented. sets: number of sets of findings that occur, None where not known;
    sets_of: whose they are. risk: weight of a finding when it is missed, and when it is invented."""

    title: str
    settings: str = ""
    source: str = ""
    sets: int | None = None
    sets_of: str = ""
    risk: dict[str, list[float]] | None = None


class CorruptionsInfo(Stated):
    """The natural corruptions that were measured, on n images. titles: by the name in the rows."""

    chosen: str
    titles: dict[str, str]
    n: int
    dataset: str | None = None
    """Of MedMNIST-C, where its corruptions were measured."""
    left_out: str = ""
    """The corruption of MedMNIST-C for that data set that is not made here."""


class ChangeExample(Stated):
    """One image that a change turned. words: what was done to it."""

    words: str
    before: int | list[int]
    after: int | list[int]


class ChangeInfo(AttackInfo):
    """A patch or a change of few parameters. range: what was allowed, in words."""

    range: str = ""
    examples: list[ChangeExample] = []


class CertifiedInfo(Stated):
    """What was proved by. method: ``bound`` of its rows."""

    method: str
    title: str
    source: str = ""


class SmoothedInfo(Stated):
    """How a smoothed classifier was made: see ``certified.Smoothing``."""

    sigma: float
    draws: int
    choosing: int
    alpha: float


class ComparedRun(Stated):
    """One of several audits that are compared. name: of its rows. failed: sanity checks of it that failed."""

    name: str
    model: str
    model_digest: str = ""
    data: str = ""
    id: str = ""
    finished: str = ""
    n_test: int
    n_attacked: int
    threshold: float | tuple[float, ...] | None = None
    failed: list[str] = []
    guesses: str = ""


class ComparedInfo(Stated):
    """Audits side by side. reference: the size of the primary comparison. attacks: those that all have run.

    by_patient: whether images of one patient are counted together. notes: what was left out, and why.
    """

    runs: list[ComparedRun] = Field(min_length=2)
    reference: float
    attacks: list[str]
    by_patient: bool = False
    notes: list[str] = []


class RunInfo(Stated):
    """Which run made the numbers. id and times: of the run folder; command: as it was typed.

    digest: SHA-256 of the results. commit: of git in the working directory; modified: whether files differed from it.
    code: SHA-256 of medrobust's source files.
    """

    id: str = ""
    begun: str = ""
    finished: str = ""
    command: str = ""
    operator: str = ""
    digest: str = ""
    commit: str = ""
    modified: bool = False
    code: str = ""
    machine: Mapping[str, object] = {}
    versions: dict[str, str] = {}


class Conditions(Stated):
    """What was tested, and how. eps are fractions of the pixel range; n_… count images."""

    classes: list[str] = Field(min_length=1)
    class_notes: list[str] = []
    """What was assumed, mapped or is missing among the classes."""
    study: str = "audit"
    data: str = ""
    data_digest: str = ""
    data_notes: list[str] = []
    synthetic: bool = False
    """The images were drawn by a program."""
    model_doubts: list[str] = []
    """What limits every number of the network, a sentence each."""
    model_notes: list[str] = []
    left_out: list[LeftOutEntry] = []
    n_train: int | None = None
    n_val: int | None = None
    n_test: int | None = None
    n_attacked: int | None = None
    n_patients_attacked: int | None = None
    """None where it is not known whose images they are."""
    disease_classes: list[int] = []
    prevalence: dict[str, float] = {}
    """Stated shares of studies by class or finding; of those that are absent, the test images' own."""
    size: int | None = None
    shapes: list[tuple[int, int]] | None = None
    """(height, width) of images that keep their own; None where all are squares of ``size``."""
    preprocessing: str | None = None
    channels: int | None = None
    fit: str | None = None
    """How images were made square; None where all are."""
    bits: int = 8
    levels: int | None = None
    """The whitest stored grey level that is shown; None where images differ in it."""
    span: int = 1
    """Width of what a pixel may hold, in units of what is shown."""
    on_grid: bool = False
    """Whether attacks stayed on whole stored levels."""
    model: str = ""
    model_digest: str = ""
    trained_here: bool | None = None
    provenance: Mapping[str, object] = {}
    parameters: int | None = None
    answers: Literal["scores", "labels"] | None = None
    """What could be had of a classifier without gradients."""
    head: str = ""
    mean: list[float] = []
    std: list[float] = []
    threshold: float | tuple[float, ...] | None = None
    seed: int | None = None
    norm: str = "Linf"
    eps: list[float] = []
    pictures: bool = True
    """Whether images of the data may be shown."""
    attacks: dict[str, AttackInfo] = {}
    headline: HeadlineInfo | None = None
    findings: FindingsInfo | None = None
    corruptions: CorruptionsInfo | None = None
    changes: dict[str, ChangeInfo] = {}
    """By the name in the rows."""
    certified: CertifiedInfo | None = None
    smoothed: SmoothedInfo | None = None
    universal: UniversalInfo | None = None
    defence: DefenceInfo | None = None
    hardening: HardeningInfo | None = None
    input_defences: InputDefencesInfo | None = None
    detection: DetectionInfo | None = None
    evasion: EvasionInfo | None = None
    explained: dict[str, ExplainedInfo] = {}
    """By place: the first is the classifier that the run is about."""
    search: SearchInfo | None = None
    searched: dict[str, SearchedInfo] = {}
    """By question."""
    attacked_networks: AttackedNetworksInfo | None = None
    compared: ComparedInfo | None = None
    test_images: list[str] = []
    """Their names, or codes for them, in the order of arrays that have an entry a test image."""
    versions: dict[str, str] = {}
    hardware: str = ""
    pending: list[str] = []
    """Experiments whose numbers are still to come; empty when the run is finished."""

    @property
    def grey_scale(self) -> GreyScale:
        """The grey levels in which sizes are counted."""
        return GreyScale(self.levels or EIGHT_BITS, self.span)

    @property
    def patients_known(self) -> bool:
        return self.n_patients_attacked is not None

    @property
    def pixels(self) -> int | None:
        """Of an image; None where images differ in size or it is not known."""
        if self.shapes:
            return self.shapes[0][0] * self.shapes[0][1] if len(self.shapes) == 1 else None
        return self.size and self.size**2

    @field_validator("disease_classes", "data_notes", "left_out", "eps", "mean", "std", mode="before")
    @classmethod
    def _nothing_is_empty(cls, value: object) -> object:
        return [] if value is None else value


class Example(Stated):
    """label, before, after: index of a class; of several findings 0, 1 or -1 (unknown) for each."""

    id: str
    label: int | list[int]
    before: int | list[int]
    after: int | list[int]
    confidence_before: float | None = None
    confidence_after: float | None = None
    eps: float | None = None
    size: float | None = None
    attack: str = ""
    patient: str | None = None
