"""Audits and comparisons from Python: of a classifier and images in memory, with results that a notebook shows.

``audit`` and ``compare`` are ``medrobust.audit`` and ``medrobust.compare``.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medrobust import data as data_room
from medrobust import paired, report
from medrobust.classifier import Classifier
from medrobust.criteria import Criteria
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.experiments import ask, eps_fields
from medrobust.experiments import audit as run_audit
from medrobust.experiments.config import CLASSIC, USUAL_CHANGES
from medrobust.progress import Progress
from medrobust.report import findings, notebook
from medrobust.report import run as runs
from medrobust.report.criteria_words import CriteriaInfo
from medrobust.report.findings import Findings
from medrobust.report.first_page import FirstPage, first_page
from medrobust.report.run import Run
from medrobust.report.writing import write_export
from medrobust.results import Row

if TYPE_CHECKING:
    import pandas

SIGN = b"Made by medrobust"
"""Stands in every page: a file without it is not overwritten."""


@dataclass(frozen=True)
class Results:
    """What an audit or a comparison found. folder: the run folder, where one was named; None: all is in memory.

    A notebook shows the verdict, its facts and the accuracy at each size.
    """

    run: Run = field(repr=False)
    page: str = field(repr=False)
    folder: Path | None = None

    @cached_property
    def _findings(self) -> Findings:
        return findings.find(self.run)

    @property
    def rows(self) -> list[Row]:
        """Every number with its interval and its n."""
        return self.run.rows

    @property
    def summary(self) -> FirstPage:
        """Verdict, facts and paragraphs of the first page."""
        return first_page(self._findings)

    @property
    def criteria(self) -> CriteriaInfo | None:
        """The acceptance criteria and how they were judged; None where none were given."""
        return self.run.criteria

    def frame(self) -> pandas.DataFrame:
        """The rows as a data frame, a column an entry of ``results.csv``; needs pandas."""
        try:
            import pandas as pd
        except ImportError:
            raise InputError("a data frame needs pandas: pip install 'medrobust[frame]'") from None
        return pd.DataFrame([row.plain() for row in self.rows])

    def report(self, path: str | Path) -> Path:
        """Write the report, one page with everything in it, to ``path``; returns it.

        InputError where a file is there that is no report.
        """
        path = Path(path)
        write_export(path, self.page.encode(), SIGN)
        return path

    def _repr_html_(self) -> str:
        return notebook.html(self._findings, None if self.folder is None else self.folder / "report.html")

    def __str__(self) -> str:
        page = self.summary
        required = [] if self.criteria is None else [self.criteria.line]
        return "\n".join([*required, page.title, page.text, *(f"{f.label}: {f.value} ({f.note})" for f in page.facts)])


def audit(
    classifier: Classifier,
    data: Dataset | str,
    *,
    out: str | Path | None = None,
    attacks: Sequence[str] = CLASSIC,
    norm: str = "linf",
    eps: Sequence[float] | str | None = None,
    limit: int | None = 80,
    seed: int = 0,
    auto: str = "auto:steps=15:queries=50",
    universal: bool = True,
    detect: bool = True,
    explain: bool = True,
    stored: bool = True,
    corruptions: str = "any",
    changes: Sequence[str] = USUAL_CHANGES,
    healthy: str | None = None,
    risk: str | None = None,
    ordinal: bool = False,
    prevalence: float | Mapping[str, float] | None = None,
    require: Sequence[str] = (),
    keep_names: bool = False,
    pictures: bool = True,
    progress: Progress | None = None,
) -> Results:
    """Attack a classifier on a data set, judge, check, and return what was found: ``medrobust audit`` from Python.

    data: as ``medrobust.data.load`` gives it, or what it takes. The test split is attacked; all images of a data set
    without a split of its own, where the classifier was not trained on it.
    out: a run folder, in which a killed audit goes on; if not given, nothing is kept on disk.
    eps: ascending fractions of what is shown, or text as the command line takes it ("1/255,2/255", "4lv").
    prevalence: share of studies with the disease, or by class or finding, for the counts in 1,000 studies.
    require: acceptance criteria, such as "accuracy@1/255 >= 0.8". The other options are those of ``medrobust audit``.
    InputError, in one line, for what cannot be audited.
    """
    if not isinstance(classifier, Classifier):
        raise InputError(
            f"wrap the network first: medrobust.Classifier(net, classes=[…]); got {type(classifier).__name__}"
        )
    data = data_room.load(data, seed=seed) if isinstance(data, str) else data
    if not isinstance(data, Dataset):
        raise InputError(f"data must be a Dataset of medrobust.data.load, got {type(data).__name__}")
    sizes = eps_fields(eps) if isinstance(eps, str) else {} if eps is None else {"eps": tuple(map(float, eps))}
    config = ask(
        data=data.name,
        model=str(classifier.provenance.get("architecture") or type(classifier.net).__name__),
        attacks=tuple(attacks.split(",") if isinstance(attacks, str) else attacks),
        norm=norm,
        limit=limit,
        seed=seed,
        auto=auto,
        universal=universal,
        detect=detect,
        explain=explain,
        stored=stored,
        corruptions=corruptions,
        changes=tuple(changes.split(",") if isinstance(changes, str) else changes),
        healthy=healthy,
        risk=risk,
        ordinal=ordinal,
        prevalence=prevalence,
        **sizes,
    ).model_copy(update={"limit": limit})  # ask leaves out None, which is all images here
    with _folder(out) as folder:
        run_audit(
            config,
            folder,
            in_memory=(classifier, data),
            command="medrobust.audit",
            criteria=Criteria.read(list(require)),
            keep_names=keep_names,
            pictures=pictures,
            progress=progress,
        )
        report.write(folder)
        return _read(folder, out)


def compare(
    *audited: Results | str | Path,
    names: Sequence[str] | None = None,
    eps: float | None = None,
    out: str | Path | None = None,
) -> Results:
    """Audits on the same images side by side, image by image: ``medrobust compare`` from Python.

    audited: results of ``audit``, or run folders, the baseline first. names: of them, for people. eps: the reference
    size. out: a run folder; if not given, nothing is kept on disk. InputError where they cannot be compared.
    """
    with _folder(out) as folder:
        compared = [r.run if isinstance(r, Results) else Path(r) for r in audited]
        paired.compare(compared, folder, names=names, eps=eps, command="medrobust.compare")
        return _read(folder, out)


@contextlib.contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    """``out``, or a folder that is removed in the end."""
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary) / "run"


def _read(folder: Path, out: str | Path | None) -> Results:
    page = (folder / "report.html").read_text(encoding="utf-8")
    return Results(runs.read(folder), page, None if out is None else folder)


__all__ = ["Results", "audit", "compare"]
