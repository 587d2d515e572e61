"""One look at what a network does with a few images, before anything is computed from its answers.

Every finding is one sentence. What can be handled is handled and named (its type, the entry of its output that holds
the logits, one image at a time); what limits every number is a doubt; what cannot be used is an InputError.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from medrobust.errors import InputError, one_line
from medrobust.heads import Head, Threshold
from medrobust.images import Images
from medrobust.models.black_box import BlackBoxModel
from medrobust.models.form import Form, entries, find_logits

EXAMINED = 8
"""Images that are looked at."""
ENOUGH = 4
"""Different images from which "all of them" says something."""
TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Difference between two answers that is rounding, as a share of the largest output, by type."""
ROUNDING = 1e-3
"""The same for other types: batches of another shape run other kernels."""
OTHER_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
TYPE_ERROR = re.compile(r"dtype|scalar type|should be the same|Half|BFloat16|Double|type \(", re.IGNORECASE)
STRETCHED = (-8.0, 8.0, -100.0, 100.0)
"""Factors by which normalised images are stretched: logits then leave [0, 1], probabilities never do."""

RANDOM = (
    "The network is random: it gave two different answers to the same images. Another run gives other numbers, and an "
    "attack that fails may have failed by chance."
)
COMPANY = (
    "The network's answer to an image depends on the other images in its batch (BatchNorm without running statistics, "
    "activations quantised by the batch, or the batch taken for another axis). Every image is computed alone."
)


class Inspected(Protocol):
    """The part of a Classifier that examining its network needs."""

    net: nn.Module
    head: Head
    classes: tuple[str, ...]
    outputs: str | None
    output: str | int | None
    threshold: Threshold
    channels: int | None
    channels_given: bool

    def prepare(self, images: Images, channels: int | None) -> Tensor:
        """Normalised images, with so many channels."""


@dataclass(frozen=True)
class Inspection:
    """form: how the network is called. channels: that it is given, None where any number will do.

    repeatable: the same images get the same answers again. independent: an image's answer does not depend on the
    others in its batch. differentiable: a gradient reaches the image. notes: what is converted or chosen, a sentence
    each. doubts: what limits every number, a sentence each.
    """

    form: Form
    channels: int | None
    repeatable: bool
    independent: bool
    differentiable: bool
    notes: tuple[str, ...]
    doubts: tuple[str, ...]

    def of_plain(self) -> Inspection:
        """The same of the network wrapped into one that is called with float32 images and returns a tensor."""
        return dataclasses.replace(self, form=Form())

    @property
    def sentences(self) -> tuple[str, ...]:
        """All findings, doubts first."""
        return (*self.doubts, *self.notes)


def inspect(classifier: Inspected, images: Images) -> Inspection:
    """Examine the network on up to ``EXAMINED`` of ``images`` (n, c, h, w) in [0, 1].

    The network must be in evaluation mode. Nothing is changed but the state that the network itself changes. Raises
    InputError, in one line, for a network that cannot be used: it fails, its output has another shape than the
    classes, answers are NaN, or its outputs are probabilities.
    """
    images = _different(images.detach()[:EXAMINED])
    given = images.shape[0]
    if given == 1:  # an image needs company to show that it does not depend on it
        images = torch.cat([images, 1 - images])
    with _own_randomness(images), torch.no_grad():
        form, channels, raw, notes = _first(classifier, images)
        doubts: list[str] = []
        finite = torch.isfinite(raw).all(1)
        if not bool(finite.all()):
            doubts.append(_not_finite(int((~finite).sum()), images.shape[0], form))
            images, raw, given = images[finite], raw[finite], int(finite[:given].sum())
        inputs = classifier.prepare(images, channels)
        repeatable = all(_close(form.run(classifier.net, inputs), raw, form) for _ in range(2))
        independent = True
        if not repeatable:
            doubts.append(RANDOM)
        elif not form.single:
            independent = _independent(classifier.net, inputs, raw, form)
            if not independent:
                form = form._replace(single=True)
                doubts.append(COMPANY)
        if given >= ENOUGH and bool((raw == raw[:1]).all()):
            doubts.append(
                f"The network gave the same outputs for all {given} images tried: are its weights loaded and its "
                "inputs normalised as in training?"
            )
        if classifier.outputs is None:
            _refuse_probabilities(classifier, inputs, raw[:given], form)
    differentiable = _differentiable(classifier, images, channels, form)
    if not differentiable:
        doubts.append(
            "Only answers of this classifier can be had, no gradients: attacks query it."
            if isinstance(classifier.net, BlackBoxModel)
            else "No gradient reaches the image (a quantised network, or code without a derivative): attacks that "
            "follow gradients show nothing here, only attacks without gradients do."
        )
    return Inspection(form, channels, repeatable, independent, differentiable, tuple(notes), tuple(doubts))


class _Way(NamedTuple):
    """One way to call a network."""

    dtype: torch.dtype
    channels: int | None
    single: bool


def _first(classifier: Inspected, images: Images) -> tuple[Form, int | None, Tensor, list[str]]:
    """The first way to call the network that gives outputs: (form, channels, raw (n, outputs), notes)."""
    own = _own_type(classifier.net)
    n, outputs = images.shape[0], classifier.head.outputs(len(classifier.classes))
    needed = (
        f"a {classifier.head.name} head of {len(classifier.classes)} classes needs {outputs}; "
        "name every class in classes=, or choose another head="
    )
    have, guessed = images.shape[1], classifier.channels
    feasible = (None, have, 3) if have == 1 else (None, have)
    ways = [_Way(own, guessed if classifier.channels_given or guessed in feasible else have, False)]
    refusal: InputError | None = None
    for dtype, channels, single in ways:  # grows while it is read
        inputs = classifier.prepare(images, channels).to(dtype)
        convolutions: list[nn.Conv2d] = []
        with _watched(classifier.net, convolutions):
            try:
                answers = [classifier.net(x) for x in (inputs.split(1) if single else (inputs,))]
                logits = [find_logits(a, 1 if single else n, outputs, needed, classifier.output) for a in answers]
            except InputError as error:
                refusal = refusal or error
                ways += [w for w in [_Way(dtype, channels, True)] if w not in ways]
                continue
            except Exception as error:  # whatever a user's code raises
                shape = " x ".join(map(str, inputs.shape[1:]))
                if refusal is None or channels != ways[0][1]:
                    refusal = InputError(f"the network fails on {n} images of {shape}: {one_line(error)}")
                    refusal.__cause__ = error
                further: list[_Way] = []
                if not classifier.channels_given:
                    takes = convolutions[0].in_channels if convolutions else 3
                    if convolutions and takes not in feasible:
                        raise other_channels(takes, have) from error
                    further.append(_Way(dtype, takes, False))
                if TYPE_ERROR.search(str(error)):
                    further += [_Way(other, channels, False) for other in OTHER_TYPES]
                further.append(_Way(dtype, channels, True))
                ways += [w for w in further if w not in ways and w.channels in feasible]
                continue
        key = logits[0][1]
        raw = torch.cat([values for values, _ in logits]).float()
        notes = _notes(answers[0], key, dtype, single, channels, classifier)
        form = Form(dtype, key, single)
        if classifier.outputs == "probabilities":
            form = form._replace(probabilities=_kind(classifier.head, raw, form))
            raw = form.run(classifier.net, inputs)
            notes.append("The network returns probabilities: attacks work on logits that decide as they do.")
        return form, channels, raw, notes
    assert refusal is not None
    raise refusal


def _notes(
    answer: object, key: str | int | None, dtype: torch.dtype, single: bool, channels: int | None, classifier: Inspected
) -> list[str]:
    notes = []
    if dtype != torch.float32:
        name = str(dtype).removeprefix("torch.")
        notes.append(f"The network computes in {name}: images are converted to it, and its outputs to float32.")
    if key is not None:
        held = ", ".join(map(repr, list(entries(answer))[:8]))
        notes.append(f"The network returns a {type(answer).__name__} of {held}; {key!r} is taken as the logits.")
    if single:
        notes.append("The network takes one image at a time: every image is computed alone.")
    if classifier.channels is not None and channels != classifier.channels:
        notes.append(
            f"The first convolution that runs takes {channels} channel(s), the first one registered "
            f"{classifier.channels}: images are given with {channels}."
        )
    return notes


def other_channels(takes: int, have: int) -> InputError:
    return InputError(
        f"this network takes {takes} channel(s), the images have {have}; "
        "load the data with channels=1 or use a network for colour"
    )


def _not_finite(bad: int, n: int, form: Form) -> str:
    """The doubt about answers that are NaN or infinite; InputError where all are."""
    hint = "; float16 overflows: give the network in float32 or bfloat16" if form.dtype == torch.float16 else ""
    text = f"outputs are NaN or infinite for {bad} of {n} images"
    if bad == n:
        raise InputError(f"the network's {text}: check its weights and the normalisation of its inputs{hint}")
    return f"The network's {text}: such images read inconclusive{hint}."


def _independent(net: nn.Module, inputs: Tensor, raw: Tensor, form: Form) -> bool:
    """Whether images get alone the answers that they get in company. InputError where they cannot be computed alone
    and depend on their company."""
    count = min(ENOUGH, inputs.shape[0])
    try:
        alone = form._replace(single=True).run(net, inputs[:count])
    except Exception as error:
        grey = inputs.new_zeros(inputs.shape[0] - 1, *inputs.shape[1:])
        if _close(form.run(net, torch.cat([inputs[:1], grey]))[:1], raw[:1], form, raw):
            return True
        raise InputError(
            "the network's answer to an image depends on the other images in its batch, and it cannot compute one "
            f"image alone ({one_line(error)}): give its BatchNorm running statistics"
        ) from error
    return _close(alone, raw[:count], form, raw)


def _refuse_probabilities(classifier: Inspected, inputs: Tensor, raw: Tensor, form: Form) -> None:
    """InputError where all outputs lie in [0, 1] and nothing shows that they are logits.

    A softmax head may clear itself: stretched images drive logits out of [0, 1], and its decisions are the largest
    output either way. One output a decision is compared with 0 if it is a logit and with 1/2 if it is a probability,
    so that no such head clears itself.
    """
    slack = TOLERANCE.get(form.dtype, ROUNDING)
    if not _within(raw, slack):
        return
    compared = classifier.head.name != "softmax" or classifier.threshold is not None
    proves = not isinstance(classifier.net, BlackBoxModel) and not (compared and raw.shape[0] >= ENOUGH)
    if proves and _leaves(classifier.net, inputs, form, slack):  # a black box takes pixels in [0, 1] only
        return
    raise InputError(
        f"all outputs lie in [0, 1] on {raw.shape[0]} image(s): they are taken to be probabilities already (softmax or "
        "sigmoid); if so, say --outputs probabilities, or give the network without its last softmax or sigmoid; "
        'if they are logits, say --outputs logits (in Python outputs="logits")'
    )


def _kind(head: Head, raw: Tensor, form: Form) -> str:
    """How probabilities are read; InputError where some are none."""
    finite = raw[torch.isfinite(raw)]
    if not _within(finite, TOLERANCE.get(form.dtype, ROUNDING)):
        raise InputError(
            f"outputs from {float(finite.min()):.3g} to {float(finite.max()):.3g} are no probabilities: leave out "
            "--outputs probabilities"
        )
    return "classes" if head.name == "softmax" else "each"


def _leaves(net: nn.Module, inputs: Tensor, form: Form, slack: float) -> bool:
    for factor in STRETCHED:
        try:
            stretched = form.run(net, inputs * factor)
        except Exception:  # code that checks its input shows nothing either way
            continue
        if not _within(stretched[torch.isfinite(stretched)], slack):
            return True
    return False


def _within(values: Tensor, slack: float) -> bool:
    return bool(((values >= -slack) & (values <= 1 + slack)).all())


def _differentiable(classifier: Inspected, images: Images, channels: int | None, form: Form) -> bool:
    """Whether a gradient reaches the image. InputError where computing it fails."""
    if torch.is_inference_mode_enabled():
        return True
    with torch.enable_grad(), _own_randomness(images), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        images = images.clone().requires_grad_()
        try:
            raw = form.run(classifier.net, classifier.prepare(images, channels))
            if not raw.requires_grad:
                return False
            (gradient,) = torch.autograd.grad(raw.sum(), images, allow_unused=True)
        except Exception as error:
            raise InputError(f"the network's gradient cannot be computed: {one_line(error)}") from error
    return gradient is not None and not any("autograd kernel was not registered" in str(w.message) for w in warned)


def _close(a: Tensor, b: Tensor, form: Form, scale: Tensor | None = None) -> bool:
    largest = float((b if scale is None else scale).abs().max())
    return bool((a - b).abs().max() <= TOLERANCE.get(form.dtype, ROUNDING) * largest)


def _different(images: Images) -> Images:
    """Each image once: grey rows that fill up a batch carry no information."""
    kept: list[int] = []
    for i in range(images.shape[0]):
        if not any(torch.equal(images[i], images[k]) for k in kept):
            kept.append(i)
    return images[kept]


def _own_type(net: nn.Module) -> torch.dtype:
    """The floating type of the first weight; float32 where there is none."""
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


@contextmanager
def _watched(net: nn.Module, convolutions: list[nn.Conv2d]) -> Iterator[None]:
    """Collects the convolutions in the order in which they run, those that then fail too."""
    hooks = [
        module.register_forward_pre_hook(lambda m, _: convolutions.append(m))
        for module in net.modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _own_randomness(images: Images) -> Iterator[None]:
    """Restore the caller's random generators afterwards."""
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
