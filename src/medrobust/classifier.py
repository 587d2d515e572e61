"""A network with everything an attack must not have to know: normalisation, channels, head, operating point.

Pixels in [0, 1] go in, logits come out. The network stays the caller's: it is put into evaluation mode and
its parameters are frozen only while it computes, and every module and parameter is left as it was found.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from medrobust import devices, models, private_names
from medrobust.draws import Draws, alike, needs_gradient
from medrobust.errors import InputError
from medrobust.heads import Head, head_named
from medrobust.images import EVERY_PIXEL, Attackable, Images, Labels, Logits, Rounded, check_images, on_grid
from medrobust.inspection import EXAMINED, Inspection, inspect, other_channels
from medrobust.layout import Layout
from medrobust.models.finite import check_weights
from medrobust.models.folding import Bfloat16
from medrobust.models.form import Form, Formed, first_channels
from medrobust.models.preprocessing import Preprocessing, seeing
from medrobust.models.probabilities import inverted

DRAWN = 8
"""Rows of a pass for every draw of an image: few images share their draws (``attacks.drawn``)."""
OUTPUTS = ("logits", "probabilities")
"""What a network may return."""


class SubstituteGradient(Protocol):
    """Another way back through a network than its own; see ``attacks.substitute``.

    agrees: whether its gradient agrees with finite differences. text: what is done on the way back.
    """

    @property
    def agrees(self) -> bool: ...

    @property
    def text(self) -> str: ...

    def logits(self, net: nn.Module, outputs: Callable[[Images], Logits], images: Images) -> Logits:
        """``outputs(images)``, which runs ``net``, with another gradient."""


class Classifier:
    """A torch network as a classifier of pixels in [0, 1].

    net: any module that maps (n, channels, h, w) to raw outputs; alone, or as an entry of a tuple,
        a dict or a data class. In half, bfloat16 or double precision, images are converted to its type. The network
        inside a ``torch.compile`` is taken.
    classes: names, in the order of the outputs.
    mean, std: per channel (or one for all), on the [0, 1] scale.
    head: "softmax" (an output a class), "logit" (one output, two classes), "multilabel" (an output a finding).
    outputs: what the network returns where all of it lies in [0, 1], which is refused unless it is said: "logits", or
        "probabilities", which are turned into logits that decide as they do (``models.probabilities``).
    output: which entry of a tuple, dict or data class holds them, by name or position; found out when not given.
    channels: what the network takes; that of the first convolution that runs when not given. One-channel images are
        repeated for a network of three, and the gradient is summed back.
    size: side of the square input in pixels, when the network takes only one.
    preprocessing: the steps from images of any size and shape to the network's input, as text or as
        ``models.preprocessing.Preprocessing``: "resize=256,crop=224". They are differentiable, and run before the
        normalisation. Perturbations are those of the images as they are given.
    threshold: operating point on the second class's probability, or on that of every finding (one number, or one
        each; 0.5 when not given). Folded into the logits, so that attacks cross the boundary that is used in practice.
    batch_size: rows a full pass is padded to. A fixed shape makes a row's result the same to the bit in any batch;
        chosen from the image size when not given.

    Raises InputError for NaN weights. On the first images that it is given (or earlier, by ``examine``) the network is
    inspected: InputError for one that cannot be used, a warning for what limits every number.
    """

    def __init__(
        self,
        net: nn.Module,
        classes: Sequence[str],
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        head: str = "softmax",
        outputs: str | None = None,
        output: str | int | None = None,
        channels: int | None = None,
        size: int | None = None,
        preprocessing: str | Preprocessing | None = None,
        threshold: float | Sequence[float] | None = None,
        batch_size: int | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(net, nn.Module):
            raise InputError(f"net must be a torch.nn.Module, got {type(net).__name__}")
        self.net = net = getattr(net, "_orig_mod", net)  # hooks and weights are those of the network before compiling
        self.classes = tuple(str(c) for c in classes)
        if len(self.classes) < 2 and head != "multilabel":
            raise InputError(f"a classifier needs at least two classes, got {list(self.classes)}")
        self.head: Head = head_named(head)
        self.head.outputs(len(self.classes))
        if outputs not in (None, *OUTPUTS):
            raise InputError(f'outputs must be "logits", "probabilities" or left out, got {outputs!r}')
        self.outputs, self.output = outputs, output
        if np.ndim(mean) != 1 or np.ndim(std) != 1:
            raise InputError(f"mean and std are lists, a number a channel: mean=[0.5], std=[0.25]; got {mean}, {std}")
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.channels_given = channels is not None
        self.channels = channels or first_channels(net) or (len(self.mean) if len(self.mean) > 1 else None)
        self._check_normalisation()
        self.size = size
        self.preprocessing = Preprocessing(preprocessing) if isinstance(preprocessing, str) else preprocessing
        self.threshold = self.head.check_threshold(threshold, len(self.classes))
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self._batch_size = batch_size
        self.stored_levels: int | None = None
        """The largest stored value, of a classifier that rounds its images first; see ``stored``."""
        self.attackable: Attackable = EVERY_PIXEL
        """Which pixels attacks may change, and between which values; see ``seeing``."""
        self.substitute: SubstituteGradient | None = None
        """Where gradients come from, if not from the network itself: its own ones are masked."""
        self.draws: Draws | None = None
        """Of a random network: the answers that are averaged, so that the same images get the same logits again."""
        self._together: bool | None = None
        self.provenance = dict(provenance or {})
        check_weights(net)
        self.inspection: Inspection | None = None
        """The result of examining the network; None before it has been given images."""
        self._depth = 0
        self.calls = 0
        """Forward passes so far, of any number of rows: an attack's own ones are counted by it."""
        self._exact: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._fast: tuple[object, Classifier] | None = None
        self._original: Classifier | None = None
        self.layouts: dict[tuple[int, ...], dict[str, Layout]] = {}
        """Image (c, h, w) -> layer -> what its output carries: filled by ``layer_probe``."""
        self._digest: tuple[object, str] | None = None
        devices.keep_memory()

    # -- reading -----------------------------------------------------------------------------------------

    def __call__(self, images: Images) -> Logits:
        """Canonical logits, float32 (n, k), differentiable with respect to ``images`` (n, c, h, w) in [0, 1].

        Rows are computed as they come: use ``logits`` for results that do not depend on the batch.
        """
        self.calls += 1
        self.ready(images)
        if self.inspection is not None and not self.inspection.differentiable and self.substitute is None:
            images = images.detach()  # what torch gives for operators without a derivative is no gradient
        with self.borrowed():
            if self.draws is None:
                return self._at_threshold(self._outputs(images))
            return self._at_threshold(self.head.mean(self._each(images, self.draws), self.draws.probable))

    def _each(self, images: Images, draws: Draws) -> Tensor:
        """(d, n, k): canonical logits of every draw, before the operating point."""
        if self._together is None:
            self._together = alike(self._outputs, _two(images))
        self.calls += draws.count - 1
        return draws.each(self._outputs, images, self._together)

    def _outputs(self, images: Images) -> Logits:
        """Canonical logits before the operating point, with the gradient of the stand-in where there is one."""
        if self.substitute is not None and needs_gradient(images) and torch.is_grad_enabled():
            return self.substitute.logits(self.net, self._own, images)
        return self._own(images)

    def _own(self, images: Images) -> Logits:
        return self.head.canonical(self.form.run(self.net, self.prepare(images, self.channels)))

    @torch.no_grad()
    def logits(self, images: Images) -> Logits:
        """Logits (n, k) of any number of images, in padded batches of one shape, on the images' device."""
        images = check_images(images)
        self.ready(images)
        parts = []
        for chunk in images.split(self.batch_size(images.shape)):
            padded = pad(chunk.to(self.device), self.fit(chunk.shape[0], images.shape))
            parts.append(self(padded)[: chunk.shape[0]].to(images.device))
        return torch.cat(parts) if parts else images.new_empty((0, len(self.classes)))

    @torch.no_grad()
    def answers(self, images: Images) -> Tensor:
        """Logits (d, n, k) of every draw of a random network; of any other its logits, d = 1."""
        if self.draws is None:
            return self.logits(images)[None]
        rows, parts = min(DRAWN, self.batch_size(images.shape)), []
        for chunk in check_images(images).split(rows):
            with self.borrowed():
                each = self._each(pad(chunk.to(self.device), rows), self.draws)
            parts.append(each[:, : chunk.shape[0]].to(images.device))
        each = torch.cat(parts, 1) if parts else images.new_empty((self.draws.count, 0, len(self.classes)))
        return self._at_threshold(each)

    def predict(self, images: Images) -> Labels:
        """Decisions at the operating point: int64 (n,); (n, k) of 0 and 1 for a multi-label head."""
        return self.head.decide(self.logits(images))

    def probabilities(self, images: Images) -> Tensor:
        """float32 (n, k). The operating point moves decisions, never probabilities."""
        return self.to_probabilities(self.logits(images))

    def to_probabilities(self, logits: Logits) -> Tensor:
        """Probabilities (n, k) of logits this classifier gave."""
        moved = logits if self.threshold is None else logits + self.head.offset(self.threshold, logits)
        return self.head.probabilities(moved)

    def examine(self, images: Images) -> Inspection:
        """Find out what the network does with a few of ``images`` (n, c, h, w); see ``inspection.inspect``.

        Decides how the network is called from here on: a converted one that does not agree with its original on all
        of ``images`` is replaced by it, a black box. InputError for a network that cannot be used.
        """
        images = images.to(self.device)
        with self.borrowed():
            compared = self._compared(images)
            inspection = inspect(self, images[:EXAMINED])
        stated = self.provenance.get("notes", ()) if self.provenance.get("delivered") else ()
        inspection = dataclasses.replace(inspection, notes=(*stated, *compared, *inspection.notes))
        if self.labels_only and self.threshold is not None:
            raise InputError("this classifier answers with labels: its operating point cannot be moved; no --threshold")
        self.inspection, self.channels = inspection, inspection.channels
        return inspection

    def _compared(self, images: Images) -> tuple[str, ...]:
        """Compares a converted network with its original; a sentence of the result."""
        net = self.net
        if not isinstance(net, models.Converted):
            return ()
        agreement = net.agreement(self.prepare(images, self.channels), self._decide)
        if agreement.holds:
            return (
                f"The network is a copy in torch of one that {net.runtime} runs: on {agreement.images} images the "
                f"decisions are equal and outputs differ by {agreement.difference:.1g} of the largest at most. "
                f"Successes of attacks count where {net.runtime} confirms them.",
            )
        self.net = net.original
        return (
            f"The copy in torch differs from {net.runtime} on {agreement.images} images ({agreement.decisions} other "
            f"decisions, outputs by {agreement.difference:.1g} of the largest): a black box through {net.runtime} is "
            "attacked, without gradients.",
        )

    def _decide(self, raw: Tensor) -> Labels:
        """Decisions of raw outputs, at the operating point."""
        if self.outputs == "probabilities":
            raw = inverted(raw, self.head.name == "softmax")
        return self.head.decide(self._at_threshold(self.head.canonical(raw)))

    def _at_threshold(self, logits: Logits) -> Logits:
        """Moved so that the head decides at the operating point."""
        return logits if self.threshold is None else logits - self.head.offset(self.threshold, logits)

    @property
    def original(self) -> Classifier | None:
        """The same as the runtime computes it that the network was delivered for; None where this is the original."""
        if not isinstance(self.net, models.Converted):
            return None
        if self._original is None:
            self._original = self.with_net(self.net.original)
            if self.inspection is not None:
                form = Form(probabilities=self.form.probabilities)
                self._original.inspection = dataclasses.replace(self.inspection, form=form, differentiable=False)
        return self._original

    def ready(self, images: Images) -> None:
        """``examine``, if no images were seen yet; a warning for every doubt about the network."""
        if self.inspection is None and images.shape[0]:
            for doubt in self.examine(images).doubts:
                warnings.warn(doubt, stacklevel=3)

    @property
    def form(self) -> Form:
        """How the network is called."""
        return Form() if self.inspection is None else self.inspection.form

    @property
    def black_box(self) -> bool:
        """Whether only answers can be had: no gradients, no layers."""
        return isinstance(self.net, models.BlackBoxModel)

    @property
    def labels_only(self) -> bool:
        """Whether its answers are decisions without scores; known once it has answered."""
        return isinstance(self.net, models.BlackBoxModel) and self.net.labels_only is True

    @property
    def plain_net(self) -> nn.Module:
        """The network as one that takes float32 images in batches and returns one float32 tensor."""
        return self.net if self.form == Form() else Formed(self.net, self.form)

    @property
    def device(self) -> torch.device:
        first = next(self.net.parameters(), next(self.net.buffers(), None))
        return torch.device("cpu") if first is None else first.device

    @property
    def parameters(self) -> int:
        """Number of trainable numbers in the network."""
        return sum(p.numel() for p in self.net.parameters())

    def batch_size(self, shape: Sequence[int]) -> int:
        """Rows of a padded batch for images (n, c, h, w): large enough to be fast, small enough to fill."""
        if self.form.single:
            return 1
        if self._batch_size is not None:
            return self._batch_size
        budget, low, high = (2**17, 8, 64) if self.device.type == "cpu" else (2**22, 32, 512)
        rows: int = 2 ** int(math.log2(max(low, min(high, budget // (shape[-1] * shape[-2])))))
        return rows

    def fit(self, n: int, shape: Sequence[int]) -> int:
        """Rows to pad n images (n, c, h, w) to: the fewest known to give the same bits as full batches.

        A black box gets no padding: each row is a query.
        """
        if self.black_box:
            return n
        exact = self._exact.get(tuple(shape[1:]), ())
        return min((k for k in exact if k >= n), default=self.batch_size(shape))

    def try_narrow(self, shape: Sequence[int]) -> None:
        """Find out once which smaller batches give the same bits as full batches for images (n, c, h, w).

        Which kernel runs depends on the shape alone, so equal logits and gradients of one random batch tell. Most
        networks agree down to two rows on a CPU; where they do not, full batches are used throughout.
        """
        kind = tuple(shape[1:])
        if kind in self._exact or self.black_box:
            return
        full = self.batch_size(shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            images = torch.rand(full, *kind).to(self.device)
            pull = torch.randn(full, len(self.classes)).to(self.device)
        logits, gradient = self._both(images, pull)
        exact, k = [], full // 2
        while k >= 2:
            for rows in (3 * k // 2, k):
                some, slope = self._both(images[:rows], pull[:rows])
                if torch.equal(some, logits[:rows]) and torch.equal(slope, gradient[:rows]):
                    exact.append(rows)
            k //= 2
        self._exact[kind] = tuple(exact)

    def _both(self, images: Images, pull: Tensor) -> tuple[Logits, Images]:
        images = images.clone().requires_grad_()
        with torch.enable_grad():
            logits = self(images)
        if not logits.requires_grad:
            return logits, torch.zeros_like(images)
        (gradient,) = torch.autograd.grad(logits, images, pull, allow_unused=True)
        return logits.detach(), torch.zeros_like(images) if gradient is None else gradient

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[None]:
        """The network in evaluation mode with frozen parameters; each as it was afterwards, whatever happens."""
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        # a frozen TorchScript program has no modes
        modes = [(m, m.training) for m in self.net.modules() if hasattr(m, "training")]
        wanted = [(p, p.requires_grad) for p in self.net.parameters()]
        self._depth = 1
        try:
            # set where it differs only: of a small network, setting everything takes as long as its pass
            for module, mode in modes:
                if mode:
                    module.training = False  # not .eval(): a network may override train() to keep parts frozen
            for parameter, flag in wanted:
                if flag:
                    parameter.requires_grad_(False)
            yield
        finally:
            self._depth = 0
            for module, mode in modes:
                if module.training != mode:
                    module.training = mode
            for parameter, flag in wanted:
                if parameter.requires_grad != flag:
                    parameter.requires_grad_(flag)

    def fast(self, shape: Sequence[int], *, bfloat16: bool = False) -> Classifier:
        """A classifier that answers the same up to rounding and takes less time, for searching: verify what it finds.

        Its network is a copy with BatchNorm folded into the convolutions; this classifier itself where nothing folds.
        shape: of the images (n, c, h, w). bfloat16: compute in that type: rounding then changes decisions near the
        boundary. The copy is made once, and again when weights have changed.
        """
        if self.black_box or self.substitute is not None or self.draws is not None:
            return self
        state = (tuple(shape[1:]), bfloat16, models.weights_state(self.net))
        if self._fast is None or self._fast[0] != state:
            self._fast = (state, self._made_fast(shape, bfloat16))
        return self._fast[1]

    def with_net(self, net: nn.Module, batch_size: int | None = None) -> Classifier:
        """Another network with this one's classes, normalisation, head, operating point and size."""
        return self._like(net=net, batch_size=self._batch_size if batch_size is None else batch_size)

    def at(
        self,
        threshold: float | Sequence[float] | None,
        *,
        outputs: str | None = None,
        preprocessing: str | Preprocessing | None = None,
    ) -> Classifier:
        """The same network at another operating point; outputs, preprocessing: where they are others, too."""
        moved = self._like(
            outputs=outputs or self.outputs, preprocessing=preprocessing or self.preprocessing, threshold=threshold
        )
        kept = threshold == self.threshold
        moved.provenance = {k: v for k, v in self.provenance.items() if kept or k != "threshold_rule"}
        return moved

    def _like(self, **changes: Any) -> Classifier:
        """A classifier made with the arguments of this one, but for ``changes``."""
        arguments: Mapping[str, Any] = {
            "net": self.net,
            "classes": self.classes,
            "mean": self.mean,
            "std": self.std,
            "head": self.head.name,
            "outputs": self.outputs,
            "output": self.output,
            "channels": self.channels,
            "size": self.size,
            "preprocessing": self.preprocessing,
            "threshold": self.threshold,
            "batch_size": self._batch_size,
        }
        made = Classifier(**{**arguments, **changes})
        made.stored_levels, made.attackable = self.stored_levels, self.attackable
        if made.net is self.net:
            made.substitute, made.draws = self.substitute, self.draws
        return made

    def stored(self, levels: int) -> Classifier:
        """The same classifier of images as a file holds them: each is rounded to k / levels (255: 8 bits) first.

        Attacks on it search among such images alone: every image that the network is given and every result is one.
        The gradient passes the rounding as if it were not there. InputError for fewer than one level.
        """
        if levels < 1:
            raise InputError(f"levels is the largest stored value, 255 for 8 bits; got {levels}")
        return self.changed(stored_levels=levels)

    def as_stored(self, images: Images) -> Images:
        """``images`` as this classifier receives them: rounded where it is a ``stored`` one."""
        return images if self.stored_levels is None else on_grid(images, self.stored_levels)

    def changed(self, **attributes: Any) -> Classifier:
        """A copy with other attributes: a network that is called alike, preprocessing. It is not examined again."""
        made = copy.copy(self)
        made._exact, made._fast, made._original, made.layouts, made._digest = {}, None, None, {}, None
        made._together = self._together if attributes.keys() <= {"draws"} else None
        for name, value in attributes.items():
            setattr(made, name, value)
        return made

    def seeing(self, surround: bool, storable: tuple[float, float] = (0.0, 1.0)) -> Classifier:
        """The same for images with, or without, stored values around a window; see ``Dataset.surround``.

        storable: see ``Dataset.storable``; attacks on it stay in that range, and off the padding.
        """
        steps, attackable = seeing(self.preprocessing, surround), Attackable(*storable, surround)
        if (steps, attackable) == (self.preprocessing, self.attackable):
            return self
        return self.changed(preprocessing=steps, attackable=attackable)

    def confined(self, origin: Images, images: Images) -> Images:
        """``images``, changes of ``origin`` in [0, 1], as far as files can hold them: see ``images.Attackable``."""
        return images if self.attackable == EVERY_PIXEL else self.attackable.confined(origin, images)

    def of_pictures(self) -> Classifier:
        """The same for what is shown of images: without stored values around a window, and without rounding."""
        shown = self.seeing(False)
        return shown if shown.stored_levels is None else shown.changed(stored_levels=None)

    def without_rounding(self) -> Classifier:
        """The same with preprocessing that does not round to grey levels; this one where nothing is rounded."""
        if self.preprocessing is None or not self.preprocessing.rounds:
            return self
        return self.changed(preprocessing=self.preprocessing.without_rounding())

    def _made_fast(self, shape: Sequence[int], bfloat16: bool) -> Classifier:
        channels = self.channels or shape[1]
        inside = self.form.probabilities is not None and self.form == Form(probabilities=self.form.probabilities)
        plain = self.net if inside else self.plain_net  # what is read off the last operation stays outside the copy
        bfloat16 = bfloat16 and not inside
        with self.borrowed():
            net = models.folded(plain, (channels, *self.input_shape(shape)))
            if bfloat16:
                net = Bfloat16(copy.deepcopy(plain) if net is None else net)
        if net is None:
            return self
        made = self.with_net(net, self.batch_size(shape))
        if self.inspection is not None:  # the copy takes and returns what ``plain`` does, and needs no second look
            made.inspection = self.inspection if inside else self.inspection.of_plain()
        return made

    # -- keeping -----------------------------------------------------------------------------------------

    def save(self, folder: str | Path, keep_names: bool = False) -> Path:
        """Write model.safetensors and model.json; the network must carry the name of its architecture.

        keep_names: the provenance names files as they are, instead of by codes (``medrobust.private_names``).
        InputError where files are there that are not a model of medrobust.
        """
        from medrobust.models import checkpoint

        info = {
            "architecture": self.provenance.get("architecture"),
            "classes": list(self.classes),
            "channels": self.channels,
            "size": self.size,
            "preprocessing": None if self.preprocessing is None else self.preprocessing.text,
            "head": self.head.name,
            "outputs": self.outputs,
            "output": self.output,
            "mean": list(self.mean),
            "std": list(self.std),
            "threshold": self.threshold,
            "provenance": self.provenance if keep_names else private_names.provenance(self.provenance),
        }
        checkpoint.write(Path(folder), self.net, info)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path, *, trust_code: bool | str = False) -> Classifier:
        """The classifier that ``save`` wrote; InputError where files are missing or do not belong together.

        trust_code: whether code that the folder names as its network (``module:function``) may be imported and run:
        True, or the name that is trusted. Everything else in a folder is data.
        """
        from medrobust.models import checkpoint

        net, info = checkpoint.read(Path(folder), trust_code=trust_code)
        if not models.is_own(info["architecture"]):
            info["outputs"] = "logits"  # of an architecture that is known to end in a linear layer
        keys = (
            "mean",
            "std",
            "head",
            "outputs",
            "output",
            "channels",
            "size",
            "preprocessing",
            "threshold",
            "provenance",
        )
        return cls(net, info["classes"], **{k: info[k] for k in keys if info.get(k) is not None})

    @classmethod
    def delivered(
        cls,
        source: str,
        classes: Sequence[str] | None = None,
        *,
        otherwise: Sequence[str] | None = None,
        weights: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        head: str | None = None,
        outputs: str | None = None,
        output: str | int | None = None,
        channels: int = 1,
        size: int | None = None,
        preprocessing: str | Preprocessing | None = None,
        threshold: float | Sequence[float] | None = None,
    ) -> Classifier:
        """The classifier in a file, a folder or under a name of others: see ``models.delivered``.

        What is not given is what the source states. otherwise: the classes where it states none. channels, size: of the
        images, for architectures that leave them open. InputError where it cannot be used, or states otherwise.
        """
        names = tuple(classes or otherwise or ())
        got = models.load_delivered(
            models.NetworkRequest(source, names, weights, channels, size, head or "softmax", output)
        )
        given = None if classes is None else tuple(classes)
        for name, said, own in (("classes", given, got.classes), ("head", head, got.head)):
            if said is not None and own is not None and said != own:
                raise InputError(f"{source} states its {name} as {own}, not {said}: leave --{name} out")
        named = got.classes or names
        if not named:
            raise InputError(f"{source} does not state its classes: give them in the order of its outputs, --classes")
        return cls(
            got.net,
            named,
            mean=mean or got.mean or (0.0,),
            std=std or got.std or (1.0,),
            head=head or got.head or "softmax",
            outputs=outputs or got.outputs,
            output=None if got.chosen else output,
            channels=got.channels,
            size=got.size or size,
            preprocessing=preprocessing or got.preprocessing,
            threshold=threshold,
            provenance={
                "architecture": Path(source).name if Path(source).exists() else source,  # wherever the model lies
                "delivered": True,
                "weights": weights,
                "states_classes": got.classes is not None,
                "notes": list(got.notes),
            },
        )

    def digest(self) -> str:
        """sha256 of what this classifier computes: weights, buffers, settings, answers and gradients on fixed images,
        and the code of the network's classes where it is the user's own. The same wherever the model lies.
        """
        settings = {
            "classes": self.classes,
            "mean": self.mean,
            "std": self.std,
            "head": self.head.name,
            "channels": self.channels,
            "size": self.size,
            "threshold": self.threshold,
            "architecture": self.provenance.get("architecture"),
            "probabilities": self.outputs == "probabilities",
            "preprocessing": None if self.preprocessing is None else repr(self.preprocessing.steps),
            "stored_levels": self.stored_levels,
            "attackable": self.attackable,
            **({} if self.substitute is None else {"substitute": repr(self.substitute)}),
            **({} if self.draws is None else {"draws": repr(self.draws)}),
        }
        stated = json.dumps(settings, sort_keys=True)
        state = (stated, models.state(self.net))
        if self._digest is None or self._digest[0] != state:
            with self.borrowed():
                computed = models.behaviour(
                    self.net, lambda images: self.prepare(images, self.channels), self.channels, self.size
                )
            self._digest = (state, hashlib.sha256(f"{stated}\n{computed}".encode()).hexdigest())
        return self._digest[1]

    # -- checks ------------------------------------------------------------------------------------------

    def prepare(self, images: Images, channels: int | None) -> Tensor:
        """Images (n, c, h, w) normalised and with so many channels, as the network takes them."""
        if self.stored_levels is not None:
            images = Rounded.apply(images, self.stored_levels)
        if self.preprocessing is not None:
            images = self.preprocessing(images)
        have = images.shape[1]
        if self.size is not None and (images.shape[-1] != self.size or images.shape[-2] != self.size):
            if self.preprocessing is not None:
                raise InputError(
                    f"this network takes {self.size} x {self.size} pixels, preprocessing {self.preprocessing.text} "
                    f"gives {images.shape[-2]} x {images.shape[-1]}; add crop={self.size} or "
                    f"resize={self.size}x{self.size}"
                )
            raise InputError(
                f"this network takes {self.size} x {self.size} pixels, got {images.shape[-2]} x {images.shape[-1]}; "
                f"load the data with size={self.size}"
            )
        if channels is not None and have != channels:
            if have != 1:
                raise other_channels(channels, have)
            images = images.expand(-1, channels, -1, -1)
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(shape)
        std = torch.tensor(self.std, device=images.device).view(shape)
        return (images - mean) / std

    def input_shape(self, shape: Sequence[int]) -> tuple[int, int]:
        """(height, width) of what the network is given for images (..., h, w)."""
        here = (int(shape[-2]), int(shape[-1]))
        return here if self.preprocessing is None else self.preprocessing.shape(here)

    def _check_normalisation(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if self.channels is not None and len(values) not in (1, self.channels):
                raise InputError(f"{name} has {len(values)} values for a network of {self.channels} channel(s)")
            if not all(math.isfinite(v) for v in values):
                raise InputError(f"{name} must be finite, got {values}")
        if not all(v > 0 for v in self.std):
            raise InputError(f"std must be positive, got {self.std}")
        if max(abs(v) for v in (*self.mean, *self.std)) > 2:
            raise InputError(
                f"mean {self.mean} and std {self.std} look like 0..255 values; divide them by 255: pixels are in [0, 1]"
            )


def _two(images: Images) -> Images:
    """Two images of that shape with fixed random values, to try a network on."""
    drawn = torch.rand(2, *images.shape[1:], generator=torch.Generator().manual_seed(0))
    return drawn.to(images.device)


def pad(images: Images, batch_size: int) -> Images:
    """``images`` with rows of mid-grey behind them up to ``batch_size`` rows."""
    missing = batch_size - images.shape[0]
    if missing <= 0:
        return images
    return torch.cat([images, images.new_full((missing, *images.shape[1:]), 0.5)])
