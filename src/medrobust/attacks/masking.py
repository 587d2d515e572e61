"""Which operation of a network hides its gradient: every one that runs, compared with its own finite differences.

A few images and changes of them go through the network one by one. Of each operation of torch it is known then how its
inputs and outputs change, and its own derivative must say the same: that of rounding, of comparisons, of what is
detached and of functions with a backward of their own does not (Athalye et al. 2018, arXiv:1802.00420).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medrobust import seeds
from medrobust.attacks.derivative import AGREE, SIZES, _direction
from medrobust.classifier import Classifier
from medrobust.draws import seeded
from medrobust.images import Images

IMAGES, PAIRS, PULLS = 3, 4, 3
"""Images, pairs of changes of each, and random combinations of an operation's outputs."""
BYTES = 2**31
"""Of all that is recorded, beyond which fewer images are taken."""
STILL = 1e-6
"""Change, as a share of the largest value, that is rounding."""
HOOK = "a hook that changes the gradient"
NAMED = 3
"""Causes that are named."""


class Cause(NamedTuple):
    """what: the operation, or what was done. module: qualified name, "" for the network itself. kind: its class.
    place: of code of the network itself, where it stands between the layers.
    """

    what: str
    module: str
    kind: str
    place: str = ""

    @property
    def text(self) -> str:
        where = f"`{self.module}` ({self.kind})" if self.module else f"the network's own code{self.place} ({self.kind})"
        return f"{self.what} {'on' if self.what == HOOK else 'in'} {where}"


@dataclass
class _Step:
    """One operation. call: its arguments, with slots for the tensors ``given``. origins: the steps that made these.
    own: which are weights or the image. enabled: whether gradients were on. carries: whether its results have one.
    """

    name: str
    module: str
    function: Callable[..., Any]
    call: Any
    given: list[Tensor]
    origins: list[int | None]
    own: list[bool]
    out: list[Tensor]
    enabled: bool
    carries: bool


def causes(classifier: Classifier, images: Images) -> list[Cause]:
    """The first operations at which the gradient goes wrong, in the order in which they run; none where none is found.

    images (n, c, h, w): one of each decision is best. Takes about 30 passes, one image each, whose numbers are all
    kept: of large ones fewer images are taken.
    """
    kinds = {name: type(module).__name__ for name, module in classifier.net.named_modules()}
    found = _hooks(classifier.net)
    try:
        recorded = _recorded(classifier, images[:1].to(classifier.device))
        most = max(1, min(IMAGES, BYTES // (recorded.bytes * (1 + 2 * PAIRS))))
        runs = [_around(classifier, images[k : k + 1].to(classifier.device), k) for k in range(len(images))[:most]]
    except Exception:  # the network's own code may not run under a recorder
        return found
    first = runs[0][0]
    found += [Cause(HOOK, name, kinds[name]) for name in first.hooks]
    names = [step.name for step in first.steps]
    if any([step.name for step in row.steps] != names for rows in runs for row in rows):
        return found  # another path for every image
    weighted = {name for name, m in classifier.net.named_modules() if m._parameters}
    layers = [i for i, step in enumerate(first.steps) if step.module in weighted]
    bad: set[int] = set()
    for i, step in enumerate(first.steps):
        if any(origin in bad for origin in step.origins):
            bad.add(i)  # only where a gradient goes wrong first
        elif wrong := _wrong([[row.steps[i] for row in rows] for rows in runs], first.steps):
            bad.add(i)
            outside = not step.module and bool(layers)
            place = " before its first layer" if outside and i < layers[0] else ""
            place = " after its last layer" if outside and i > layers[-1] else place
            found.append(Cause(wrong, step.module, kinds.get(step.module, ""), place))
    return list(dict.fromkeys(found))


def _around(classifier: Classifier, image: Images, number: int) -> list[_Recorder]:
    """The image, and the two ends of every change of it."""
    rows = [_recorded(classifier, image)]
    for pair in range(PAIRS):
        direction = _direction(image.shape[1:], ("smooth", "rough")[pair % 2], pair, 0, [number]).to(image.device)
        rows += [_recorded(classifier, (image + s * SIZES[-1] * direction).clamp(0, 1)) for s in (1, -1)]
    return rows


def sentence(found: Sequence[Cause]) -> str:
    """Of ``causes``; those of one kind in several modules of a class are put together."""
    grouped: dict[tuple[str, str], list[Cause]] = {}
    for cause in found:
        grouped.setdefault((cause.what, cause.kind), []).append(cause)
    parts = [
        same[0].text + (f" and {len(same) - 1} more of that class" if len(same) > 1 else "")
        for same in grouped.values()
    ]
    return "; ".join(parts[:NAMED])


# -- one operation ---------------------------------------------------------------------------------------------


def _wrong(rows: list[list[_Step]], steps: list[_Step]) -> str:
    """What is wrong with the derivative of one step; "" where nothing is.

    rows: the step for each image, at the image itself and at the ends of its changes.
    """
    step = rows[0][0]
    floating = [k for k, out in enumerate(step.out) if out.is_floating_point()]
    if not step.given or not floating:
        return ""
    moves = any(_moves([r.out[k] for r in image]) for image in rows for k in floating)
    differs = any(_differ(image[0].out[k], step.out[k]) for image in rows[1:] for k in floating)
    if not (moves or differs):
        return ""
    moving = [j for j in range(len(step.given)) if any(_moves([r.given[j] for r in image]) for image in rows)]
    if any(step.origins[j] is None and not step.own[j] and step.given[j].is_floating_point() for j in moving):
        return f"code outside torch (numpy, Pillow), whose values enter at `{step.name}`,"
    if not step.carries and not step.enabled:
        return "`torch.no_grad`"
    if step.carries and not moves:
        return f"`{step.name}`, which is saturated," if moving else ""
    if step.carries and _agreement(rows) >= AGREE:
        return ""
    # what compares or counts has no gradient; it is what follows that shows it
    whole = [o for o, t in zip(step.origins, step.given, strict=True) if o is not None and not t.is_floating_point()]
    return f"`{steps[_first_whole(whole[0], steps)].name}`" if whole else f"`{step.name}`"


def _first_whole(index: int, steps: list[_Step]) -> int:
    """The step that turned floating-point numbers into those whole numbers or truth values."""
    while True:
        before = [
            o
            for o, t in zip(steps[index].origins, steps[index].given, strict=True)
            if o is not None and not t.is_floating_point()
        ]
        if not before or any(t.is_floating_point() for t in steps[index].given):
            return index
        index = before[0]


def _moves(values: list[Tensor]) -> bool:
    """Whether any of them differs from the first by more than rounding."""
    return any(_differ(v, values[0]) for v in values[1:])


def _differ(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return True
    if not a.numel():
        return False
    return bool((a.double() - b.double()).abs().max() > STILL * b.double().abs().max())


def _agreement(rows: list[list[_Step]]) -> float:
    """Cosine of the changes that the step's derivative predicts and those that there are; 0 where it has none, 1 where
    the step cannot be repeated by itself: nothing is said against it then."""
    predicted, true = [], []
    for n, image in enumerate(rows):
        at = image[0]
        leaves = [t.detach().clone().requires_grad_() if t.is_floating_point() else t for t in at.given]
        try:
            with torch.enable_grad():
                arguments, named = _filled(at.call, [t * 1 if t.requires_grad else t for t in leaves])
                out = _floating(at.function(*arguments, **named))
                wanted = [t for t in leaves if t.requires_grad]
                for pull_number in range(PULLS):
                    pulls = [_pull(o, pull_number, n, k) for k, o in enumerate(out)]
                    carrying = [(o, p) for o, p in zip(out, pulls, strict=True) if o.requires_grad]
                    if not carrying:
                        return 0.0
                    gradients = torch.autograd.grad(
                        [o for o, _ in carrying], wanted, [p for _, p in carrying], allow_unused=True, retain_graph=True
                    )
                    for up, down in zip(image[1::2], image[2::2], strict=True):
                        ends = [(u, d) for u, d, t in zip(up.given, down.given, leaves, strict=True) if t.requires_grad]
                        predicted.append(
                            sum(
                                float((g.double() * (u.double() - d.double())).sum())
                                for g, (u, d) in zip(gradients, ends, strict=True)
                                if g is not None
                            )
                        )
                        changed = zip(pulls, _floating(up.out), _floating(down.out), strict=True)
                        true.append(sum(float((p.double() * (u.double() - d.double())).sum()) for p, u, d in changed))
        except Exception:  # called by itself it may fail
            return 1.0
    a, b = torch.tensor(predicted, dtype=torch.float64), torch.tensor(true, dtype=torch.float64)
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-300))


def _pull(out: Tensor, number: int, image: int, place: int) -> Tensor:
    drawn = seeds.normal(0, f"masking/{number}/{place}", [image], out.shape)[0]
    return drawn.to(out.device, out.dtype)


# -- recording -------------------------------------------------------------------------------------------------


class _Recorder(TorchFunctionMode):
    def __init__(self, own: set[int], stack: list[str]) -> None:
        super().__init__()
        self.steps: list[_Step] = []
        self.origin: dict[int, int] = {}
        self.alive: list[object] = []
        self.own, self.stack = own, stack
        self.hooks: list[str] = []

    @property
    def bytes(self) -> int:
        """Of all tensors that are kept, at least 1."""
        return max(1, sum(t.nbytes for step in self.steps for t in (*step.given, *step.out)))

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        name = getattr(func, "__name__", "") or repr(func)
        if name == "register_hook" and _changes(lambda g: args[1](g)):
            self.hooks.append(self.stack[-1] if self.stack else "")
        return self.record(name, func, args, kwargs or {})

    def record(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", name)
        tensors: list[Tensor] = []
        call = _emptied((args, kwargs), tensors)
        given, enabled = [t.detach().clone() for t in tensors], torch.is_grad_enabled()
        out = func(*args, **kwargs)
        results = [t for t in _flat((out,)) if isinstance(t, Tensor)]
        if results:
            step = _Step(
                name,
                self.stack[-1] if self.stack else "",
                func,
                call,
                given,
                [self.origin.get(id(t)) for t in tensors],
                [id(t) in self.own for t in tensors],
                [t.detach().clone() for t in results],
                enabled,
                any(t.requires_grad for t in results),
            )
            for t in results:
                self.origin[id(t)] = len(self.steps)
            self.alive += [*results, *tensors]
            self.steps.append(step)
        return out


def _recorded(classifier: Classifier, image: Images) -> _Recorder:
    """What one image goes through, with its gradient on."""
    plain, leaf = classifier.changed(substitute=None), image.clone().requires_grad_()
    stack: list[str] = []
    recorder = _Recorder({id(t) for t in (*plain.net.parameters(), *plain.net.buffers(), leaf)}, stack)
    around = (plain.borrowed(), _named(plain.net, stack), _functions(recorder), torch.enable_grad())
    with ExitStack() as entered:
        for context in (*around, seeded("masking", 0, image.device), recorder):
            entered.enter_context(context)
        plain._own(leaf)
    return recorder


def _enter(stack: list[str], name: str, module: nn.Module, args: object) -> None:  # noqa: ARG001
    stack.append(name)


@contextmanager
def _named(net: nn.Module, stack: list[str]) -> Iterator[None]:
    """While it is on, ``stack`` ends with the name of the module whose code runs."""

    def leave(module: nn.Module, args: object, out: object) -> None:  # noqa: ARG001
        stack.pop()

    handles = []
    for name, module in net.named_modules():
        handles.append(module.register_forward_pre_hook(partial(_enter, stack, name)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _functions(recorder: _Recorder) -> Iterator[None]:
    """Functions with a backward of their own are steps, too."""
    base = torch.autograd.Function
    original: Any = base.__dict__["apply"]

    def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return recorder.record(cls.__name__, original.__get__(None, cls), args, kwargs)

    setattr(base, "apply", classmethod(apply))  # noqa: B010 (a class method cannot be assigned for a type checker)
    try:
        yield
    finally:
        setattr(base, "apply", original)  # noqa: B010


def _hooks(net: nn.Module) -> list[Cause]:
    """Hooks on the gradients of modules that change one they are shown."""
    found = []
    for name, module in net.named_modules():
        before = [lambda g, h=h, m=module: h(m, (g,)) for h in module._backward_pre_hooks.values()]
        after = [lambda g, h=h, m=module: h(m, (g,), (g,)) for h in module._backward_hooks.values()]
        if any(map(_changes, [*before, *after])):
            found.append(Cause(HOOK, name, type(module).__name__))
    return found


def _changes(hook: Callable[[Tensor], Any]) -> bool:
    shown = torch.linspace(-1, 2, 6).view(1, 1, 2, 3)
    try:
        values = [v for v in _flat((hook(shown.clone()),)) if isinstance(v, Tensor)]
    except Exception:  # written for another shape
        return False
    return bool(values) and not torch.equal(values[0], shown)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in _flat(v)]
    if isinstance(value, tuple | list):
        return [leaf for v in value for leaf in _flat(v)]
    return [value]


def _floating(out: Any) -> list[Tensor]:
    return [t for t in _flat((out,)) if isinstance(t, Tensor) and t.is_floating_point()]


class _Slot(NamedTuple):
    """Where a tensor stands among the arguments."""

    number: int


def _emptied(value: Any, tensors: list[Tensor]) -> Any:
    """``value`` with a slot for every tensor, which are put into ``tensors``."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return _Slot(len(tensors) - 1)
    if isinstance(value, dict):
        return {k: _emptied(v, tensors) for k, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_emptied(v, tensors) for v in value)
    return value


def _filled(value: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(value, _Slot):
        return tensors[value.number]
    if isinstance(value, dict):
        return {k: _filled(v, tensors) for k, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_filled(v, tensors) for v in value)
    return value
