"""The language of acceptance criteria.

    METRIC[COLUMN=VALUE, ...]@SIZE OPERATOR NUMBER
    drop[METRIC, COLUMN=VALUE, ...]@SIZE OPERATOR NUMBER

Columns and the size may be left out. ``drop`` is the value of the baseline run minus that of this run.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from medrobust.errors import InputError
from medrobust.grey_scale import UNITS, fraction

DROP = "drop"
EXAMPLE = "accuracy@1/255 >= 0.8"
OPERATORS = (">=", "<=", ">", "<")
COLUMNS = {"class": "class_name", "finding": "class_name"}
"""Columns that a criterion calls otherwise than results.json."""
SHARES = (
    *("accuracy", "balanced_accuracy", "accuracy_saved", "accuracy_full", "accuracy_after", "auroc", "auroc_paired"),
    *("sensitivity", "specificity", "recall_after", "success", "success_at", "success_saved", "flip", "fooling_rate"),
    *("fooling_rate_saved", "targeted_success", "targeted_success_new", "targeted_success_saved", "alarms", "seen"),
    *("predictive_value", "fooled", "detected", "inconclusive", "changed_by_itself", "undecided", "abstained"),
)
"""Metrics from 0 to 1: a limit outside, such as 80 for 80 %, would be fulfilled or violated by every run."""

_CRITERION = re.compile(
    r"""\s*(?P<metric>[A-Za-z][\w -]*?)\s*
    (?:\[(?P<columns>(?:"[^"]*"|'[^']*'|[^]"'])*)\]\s*)?
    (?:@\s*(?P<size>[^\s<>=≤≥]+)\s*)?
    (?P<operator>>=|<=|≥|≤|>|<)\s*
    (?P<threshold>[^<>=]+?)\s*""",
    re.VERBOSE,
)
_METRIC = re.compile(r"\s*[A-Za-z][\w -]*")
_COLUMN = re.compile(r"""\s*(?P<name>[A-Za-z_]\w*)\s*=\s*(?P<value>"[^"]*"|'[^']*'|[^,"']+?)\s*""")
_PART = re.compile(r"""(?:"[^"]*"|'[^']*'|[^,"'])+""")


@dataclass(frozen=True)
class Size:
    """A size of change. unit: "fraction" (of the pixel range; of the L2 norm a length), or one of UNITS."""

    value: float
    unit: str
    text: str
    """As it is written: "1/255"."""

    @classmethod
    def read(cls, text: str) -> Size:
        """InputError where it is no size."""
        unit = next((u for u in UNITS if text.endswith(u)), "fraction")
        try:
            value = fraction(text.removesuffix(unit))
        except ValueError:
            value = -1.0
        if not 0 <= value < math.inf or "_" in text:
            raise InputError(f"size @{text} is no size; write it as --eps has it: 1/255, 4lv or 5hu")
        return cls(value, unit, _ratio(text.removesuffix(unit)) + (unit if unit in UNITS else ""))


@dataclass(frozen=True)
class Criterion:
    """One requirement. columns: by their names in results.json. size: None where no size is named."""

    metric: str
    columns: tuple[tuple[str, str], ...]
    size: Size | None
    operator: str
    threshold: float
    written: str
    """The threshold as text: "0.8", "2/255"."""
    drop: bool = False

    @classmethod
    def read(cls, text: str) -> Criterion:
        """InputError, in one line, where ``text`` is none."""
        match = _CRITERION.fullmatch(text)
        if match is None:
            raise InputError(
                f"criterion {text!r} cannot be read; write METRIC[COLUMN=VALUE]@SIZE, one of {' '.join(OPERATORS)}, "
                f"and a number: '{EXAMPLE}'"
            )
        metric, parts = match["metric"], _PART.findall(match["columns"] or "")
        drop = metric == DROP
        if drop:
            if not parts or not _METRIC.fullmatch(parts[0]):
                raise InputError(f"criterion {text!r}: drop names its metric first: drop[accuracy]@1/255 <= 0.05")
            metric, *parts = parts
        try:
            columns = dict(_column(part) for part in parts)
            size = Size.read(match["size"]) if match["size"] else None
            threshold, written = number(match["threshold"])
        except InputError as error:
            raise InputError(f"criterion {text!r}: {error}") from None
        if len(columns) < len(parts):
            raise InputError(f"criterion {text!r} names a column twice")
        least = -1 if drop else 0
        if bare(metric) in SHARES and not least <= threshold <= 1:
            percent = f"; for a percentage write {written} %" if 1 < abs(threshold) <= 100 else ""
            raise InputError(f"criterion {text!r}: {bare(metric)} is from 0 to 1, the limit is {written}{percent}")
        operator = match["operator"].replace("≥", ">=").replace("≤", "<=")
        return cls(bare(metric), tuple(sorted(columns.items())), size, operator, threshold, written, drop)

    @cached_property
    def by_column(self) -> Mapping[str, str]:
        return dict(self.columns)

    @property
    def rising(self) -> bool:
        """Whether larger values fulfil it."""
        return self.operator.startswith(">")

    @property
    def quantity(self) -> str:
        """What it is about: "sensitivity[class=pneumonia]@1/255"."""
        columns = [f"{column_text(name)}={_quoted(value)}" for name, value in self.columns]
        listed = ", ".join([self.metric, *columns] if self.drop else columns)
        size = f"@{self.size.text}" if self.size else ""
        return f"{DROP if self.drop else self.metric}{f'[{listed}]' if listed else ''}{size}"

    def __str__(self) -> str:
        """The canonical text: equal for criteria that say the same."""
        return f"{self.quantity} {self.operator} {self.written}"


def digest(texts: Iterable[str], baseline: str = "") -> str:
    """SHA-256 of canonical texts, one a line, sorted; then a line "baseline DIGEST" where there is a baseline."""
    lines = [*sorted(texts), *([f"baseline {baseline}"] if baseline else [])]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def bare(name: str) -> str:
    """ "Balanced accuracy" and "balanced-accuracy" to "balanced_accuracy": the names of metrics, in one writing."""
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def column_text(name: str) -> str:
    """A column as a criterion names it: "class" for class_name."""
    return "class" if name == "class_name" else name


def number(text: str) -> tuple[float, str]:
    """ "0.8", "80 %" or "2/255" as a value and in one writing. InputError where it is no finite number."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else fraction(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:  # Python takes 0_8 for 8
        raise InputError(f"{text!r} is no number; write 0.8, 80 % or 2/255")
    return value, _ratio(text) if "/" in text else f"{value:.12g}"


def _ratio(text: str) -> str:
    """ "1.0/255" to "1/255"."""
    return "/".join(f"{float(part):.12g}" for part in text.split("/"))


def _column(part: str) -> tuple[str, str]:
    match = _COLUMN.fullmatch(part)
    value = match["value"] if match else ""
    quoted = value[:1] in ('"', "'")
    if match is None or ("@" in value and not quoted):
        hint = "; a size stands after the bracket, a value with @ in quotes" if "@" in part else ""
        raise InputError(f"{part.strip()!r} is no COLUMN=VALUE{hint}")
    return COLUMNS.get(match["name"], match["name"]), value[1:-1] if quoted else value


def _quoted(value: str) -> str:
    plain = not re.search(r"[\],\"'=@]", value) and value == value.strip() and value
    return value if plain else f'"{value}"' if '"' not in value else f"'{value}'"
