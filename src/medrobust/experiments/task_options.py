"""What tasks and models are asked, held against what they take, before anything runs; and attacks with all settings."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from medrobust.errors import InputError
from medrobust.experiments.catalogue import NO_DETECTOR
from medrobust.experiments.tasks import STEP, TASKS
from medrobust.grid import Model, Node

_CURVE = ("eps", "limit", "norm", "seed")
_UNIVERSAL = ("goal", "measured", "method", "norm", "seed", "settings", "zeta")
_SEARCH = ("budget", "folds", "question", "seeds")

ARGS: dict[str, tuple[str, ...]] = {
    "clean": ("limit", "seed"),
    "noise": _CURVE,
    "worst": _CURVE,
    "curve": ("attack", *_CURVE),
    "corrupted": ("corruption_set", "limit", "seed"),
    "saved": ("attack", *_CURVE),
    "transfer": ("attack", *_CURVE),
    "swept": ("attack", *_CURVE, "shard"),
    "stored": ("attack", "levels", *_CURVE),
    "sparsest": ("levels", "limit", "seed"),
    "survived": ("attack", "levels", "transformations", *_CURVE),
    "features": ("of", "layers", *_CURVE),
    "detector": ("attacks", "corrupted", "corruptions", "detector", "layers", "protocols", *_CURVE),
    "evaded": ("attack", "attacked", "detector", "evasions", "layers", "pressed", "sizes", *_CURVE),
    "queried": ("attack", "queries", *_CURVE),
    "explained": ("attack", "expensive", "measures", "steps", "surfaces", *_CURVE),
    "claimed": ("natural", "seed", "sets"),
    "measured": ("limit", "measures", "seed"),
    "more_robust": ("limit", "seed"),
    "trend": ("aside", "by", "groups", "kept", "lines", "target", "x"),
    "universal": (*_UNIVERSAL, "n", "source", "vary"),
    "judged": ("goal", "judged", "method", "norm", "on", "seed"),
    "random": ("goals", "judged", "measured", "norm", "on", "seed", "zeta"),
    "defence": (*_UNIVERSAL, "defence", "method_settings"),
    "minimised": ("budget", "dims", "function", "optimiser", "seeds", "shifted"),
    "features_table": ("source",),
    "evolved": ("method", *_SEARCH),
    "compared": ("methods", *_SEARCH),
    "ranked": ("methods",),
    "evolved_attacked": ("budget", "images", "limit", "methods", "seed", "seeds", "seen", "source"),
}
"""Arguments of each task of the package, all of them needed."""
DEFENCE = {"rounds", "epochs", "perturbations", "limit", "lr"}
"""Settings of a defence."""
MAY_ALSO = {"features": ("corrupted", "corruptions"), "features_table": ("limit", "seed", "seen")}
"""Arguments that a task takes in some cases."""


def check_node(node: Node, where: str) -> None:
    """InputError where a task is asked with an argument, attack, method or measure that does not exist."""
    if node.task not in ARGS:
        return
    needed, allowed = ARGS[node.task], (*ARGS[node.task], *MAY_ALSO.get(node.task, ()))
    for name in node.args:
        if name not in allowed:
            raise InputError(f"{where}: {node.task} takes no {name!r}{nearest(name, allowed)}")
    for name in needed:
        if name not in node.args:
            raise InputError(f"{where}: {node.task} needs {name!r}; it takes {', '.join(allowed)}")
    try:
        _check_values(node)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def check_model(model: Model) -> None:
    """InputError where a model's architecture or one of its options does not exist."""
    from medrobust import training
    from medrobust.experiments.hardening import HardeningConfig
    from medrobust.experiments.tasks.models import HARDENING

    given = {"data", "model", "seed", "resume", "keep", "device", "progress"}
    takes = {*inspect.signature(training.fit).parameters, HARDENING} - given
    takes = (
        {"mean", "std", "head", "outputs", "output", "channels", "threshold"} & _spec_fields()
        if model.weights
        else takes
    )
    for name in model.options:
        if name not in takes:
            kind = "with weights" if model.weights else "that is trained"
            raise InputError(f"model {model.name!r}: a model {kind} takes no option {name!r}{nearest(name, takes)}")
    if HARDENING in model.options:
        _built(HardeningConfig, model.options[HARDENING], f"model {model.name!r}: {HARDENING}")
    _check_architecture(model)


ON_NEEDS = ("worst", "judged")
"""Tasks whose settings are those of cells that they need."""


def attack_settings(node: Node) -> dict[str, str]:
    """Of every attack, method or optimiser that a cell asks for: all its settings, defaults included, as text.

    By the name in the rows' column ``attack``, or by that and a metric where the metric has an attack of its own.
    "steps=20, step=0.1 eps, restarts=1, loss=cross_entropy".
    """
    args, task = node.args, node.task
    if task in ("swept", "curve", "saved", "transfer", "stored") or (task == "queried" and args["attack"] != "noise"):
        return {args["attack"]: _attack(args["attack"], args["norm"])}
    if task == "survived":
        noise = "every pixel by eps" if args["norm"] == "linf" else "random signs at length eps"
        return {args["attack"]: _attack(args["attack"], args["norm"]), "noise": noise}
    if task == "features":
        return {} if args["of"] in ("clean", "corrupted") else {args["of"]: _attack(args["of"], args["norm"])}
    if task == "detector":
        return {a: _attack(a, args["norm"]) for a in args["attacks"]}
    if task == "explained":
        settings = {args["attack"]: _attack(args["attack"], args["norm"])}
        steps = f"pgd:steps={args['steps']}"
        return {**settings, "pgd min_eps_median": _attack(steps, args["norm"])}
    if task == "worst":
        each = [attack_settings(n) for n in node.needs.values() if isinstance(n, Node)]
        return {"worst": "; ".join(f"{a}: {s}" for settings in each for a, s in settings.items())}
    if task == "evaded":
        return {args["attack"]: _attack(args["attack"], args["norm"]), **_evasions(args["evasions"])}
    if task in ("noise", "queried"):
        return {"noise": "every pixel by eps" if args["norm"] == "linf" else "random direction at length eps"}
    if task == "universal":
        return {args["method"]: _method(args["method"], args["settings"])}
    if task == "judged":
        perturbation = node.needs["v"]
        return attack_settings(perturbation) if isinstance(perturbation, Node) else {}
    if task == "defence":
        method = _method(args["method"], args["method_settings"])
        return {args["method"]: f"{method}; {_hardening(args['defence'], args['settings'])}"}
    if task == "minimised":
        return {"none": f"{args['budget']} evaluations, {_optimiser(args['optimiser'])}"}
    if task == "evolved_attacked":
        return {"pgd": _evolved_attack()}
    return {}


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error message: the names that a mistyped one comes nearest to, or all of a few."""
    names = sorted(set(map(str, names)))
    near = difflib.get_close_matches(name, names, 3, 0.5)
    if near:
        return f"; the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}"
    return f"; choose from {', '.join(names[:20])}" if names else ""


def settings_text(settings: Mapping[str, object]) -> str:
    """Settings in one line, numbers with six digits."""
    return ", ".join(f"{k}={f'{v:.6g}' if isinstance(v, float) else v}" for k, v in settings.items()) or "no settings"


# -- the rest is made when it is asked for, since it loads torch ---------------------------------------------------


def _check_values(node: Node) -> None:
    from medrobust.data.corruptions import CORRUPTIONS, corruption_set
    from medrobust.detectors import DETECTORS
    from medrobust.experiments.search_config import SearchConfig
    from medrobust.experiments.tasks.search import FUNCTIONS
    from medrobust.explain import MEASURES
    from medrobust.search import OPTIMISERS
    from medrobust.threat import BALLS
    from medrobust.training.evolved import QUESTIONS
    from medrobust.transformations import TRANSFORMATIONS
    from medrobust.universal import DEFENCES, UNIVERSAL

    args = node.args
    tables: dict[str, tuple[str, Collection[str]]] = {
        "norm": ("norm", BALLS),
        "detector": ("detector", DETECTORS),
        "measures": ("measure", MEASURES),
        "expensive": ("measure", MEASURES),
        "optimiser": ("optimiser", OPTIMISERS),
        "function": ("function", FUNCTIONS),
        "question": ("question", QUESTIONS),
        "protocols": ("protocol", ("clean", "paper")),
        "defence": ("defence", DEFENCES),
        "corruptions": ("corruption", CORRUPTIONS),
        "transformations": ("transformation", TRANSFORMATIONS),
    }
    if node.task == "evaded":
        tables["detector"] = ("detector", (*DETECTORS, NO_DETECTOR))
    if node.task in ("universal", "judged", "defence"):
        tables["method"] = ("method", UNIVERSAL)
    for argument, (kind, table) in tables.items():
        if args.get(argument) is None:
            continue
        given = args[argument]
        for name in given if isinstance(given, (list, tuple)) else (given,):
            if name not in table:
                raise InputError(f"no {kind} {name!r}{nearest(str(name), table)}")
    if node.task == "corrupted":
        corruption_set(args["corruption_set"])
    sizes = args.get("eps", ())
    for eps in sizes if isinstance(sizes, (list, tuple)) else (sizes,):
        BALLS[args["norm"]](eps)
    if node.task in ("compared", "evolved"):
        methods = tuple(args["methods"] if node.task == "compared" else (args["method"],))
        SearchConfig((args["question"],), methods, args["budget"], args["seeds"], args["folds"])
    attack_settings(node)


def _attack(name: str, norm: str) -> str:
    from medrobust.experiments.config import attack_named
    from medrobust.threat import BALLS

    attack = attack_named(name)
    settings: dict[str, object] = {"restarts": getattr(attack, "restarts", 1), **attack.settings}
    length = getattr(attack, "length", None)
    if "step_size" in settings and callable(length):
        del settings["step_size"]
        settings["step"] = f"{length(BALLS[norm](0.1)):.6g} eps"
    loss = getattr(attack.loss, "__name__", type(attack.loss).__name__)
    order = ("steps", "step", "restarts")
    first = {k: settings[k] for k in order if k in settings}
    rest = {k: v for k, v in settings.items() if k not in order}
    return settings_text({**first, **rest, **({"loss": loss} if attack.uses_gradient else {})})


def _method(name: str, settings: Mapping[str, Any]) -> str:
    from medrobust.universal import UNIVERSAL

    return settings_text(_built(UNIVERSAL[name], settings, f"method {name!r}").settings)


def _hardening(name: str, settings: Mapping[str, Any]) -> str:
    from medrobust.experiments.defence import DefenceConfig

    if unknown := sorted(settings.keys() - DEFENCE):
        raise InputError(f"defence {name!r} takes no {unknown[0]!r}{nearest(unknown[0], DEFENCE)}")
    made = DefenceConfig(defence=name, **settings).trainer
    return settings_text({k: v for k, v in vars(made).items() if not callable(v)})


def _optimiser(name: str) -> str:
    from medrobust.search import OPTIMISERS

    return settings_text({k: v for k, v in vars(OPTIMISERS[name]()).items() if isinstance(v, (int, float, str, bool))})


def _evolved_attack() -> str:
    from medrobust.experiments.accuracy_matched import AccuracyMatchedConfig
    from medrobust.experiments.config import attack_named

    return settings_text(attack_named(AccuracyMatchedConfig().attack).settings)


def _evasions(names: Sequence[str]) -> dict[str, str]:
    from medrobust.experiments.evasion_config import EvasionConfig, evasion_named

    each = [f"{name}: {settings_text(evasion_named(name).settings)}" for name in names]
    return {EvasionConfig(tuple(names)).name: "; ".join(each)}


def _built(kind: Callable[..., Any], settings: Mapping[str, Any], what: str) -> Any:
    takes = inspect.signature(kind).parameters
    for name in settings:
        if name not in takes:
            raise InputError(f"{what} takes no {name!r}{nearest(name, takes)}")
    return kind(**settings)


def _spec_fields() -> set[str]:
    from medrobust.experiments.config import AuditSpec

    return set(AuditSpec.model_fields)


def _check_architecture(model: Model) -> None:
    from medrobust.models import ALIASES, OWN, is_own, timm_network

    base = model.architecture.partition("+")[0]
    name = ALIASES.get(base, base)
    if is_own(name) or name.partition(":")[0] in OWN or timm_network.is_timm(name):  # importing timm takes seconds
        return
    near = timm_network.nearest(name, [*OWN, *ALIASES])
    raise InputError(
        f"model {model.name!r}: no architecture {name!r}" + (f"; the nearest are {', '.join(near)}" if near else "")
    )


assert set(ARGS) | {"train", STEP} == set(TASKS)
