"""The rows of a study in other tools' hands: every number arrives, and can be read back."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medrobust import verification
from medrobust.cli import app
from medrobust.report import pdf
from medrobust.report.study_export import metric_names
from tests.results_files import edit
from tests.runner.test_execute import a_study, cell, go


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished study whose rows differ in their columns, in types, and in one name that is long."""
    folder = tmp_path_factory.mktemp("exported")
    go(a_study(cell("number", 1), cell("number", 2.5)), folder)
    told = json.loads((folder / "results.json").read_text())
    first, second = told["rows"]
    first |= {"layer": "", "same": True, "label": "a long one, with / and ζ" * 20}
    second |= {"at": 3, "value": None, "label": "b"}
    told["rows"] += [first | {"n": 11}]  # the same number twice: neither may be lost
    edit(folder, told)
    return folder


def export(folder: Path, *args: str | Path) -> str:
    done = CliRunner().invoke(app, ["study", "export", str(folder), *map(str, args)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def rows_of(folder: Path) -> list[dict]:
    return list(json.loads((folder / "results.json").read_text())["rows"])


def test_parquet_holds_every_row_with_its_types(run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    export(run, "--parquet", tmp_path / "new folder/rows.parquet")
    found = parquet.read_table(tmp_path / "new folder/rows.parquet")
    columns = dict.fromkeys(k for r in rows_of(run) for k in r)
    assert found.to_pylist() == [{k: r.get(k) for k in columns} for r in rows_of(run)]
    kinds = {f.name: str(f.type) for f in found.schema}
    assert (kinds["value"], kinds["n"], kinds["at"], kinds["same"], kinds["label"]) == (
        "double",
        "int64",
        "int64",
        "bool",
        "string",
    )


def test_each_table_is_exported_as_it_is_shown(run, tmp_path):
    export(run, "--tables", tmp_path / "shown")
    shown = CliRunner().invoke(app, ["study", "show", str(run)], env={"COLUMNS": "300"}).output
    files = sorted((tmp_path / "shown").glob("*.csv"))
    assert files
    for file in files:
        with file.open(newline="") as stream:
            assert all(cell in shown for line in csv.reader(stream) for cell in line)


def test_csv_and_latex_hold_every_row(run, tmp_path):
    export(run, "--csv", tmp_path / "rows.csv", "--latex", tmp_path / "tables.tex")
    with open(tmp_path / "rows.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert [r["label"] for r in found] == [r["label"] for r in rows_of(run)]
    assert r"\begin{tabular}" in (tmp_path / "tables.tex").read_text()


@pytest.mark.filterwarnings("ignore")  # what MLflow says of its own parts
def test_mlflow_gets_a_metric_a_number(run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    name = export(run, "--mlflow").split()[-1]
    found = mlflow.get_run(name)
    known = [r for r in rows_of(run) if r["value"] is not None]
    assert sorted(found.data.metrics.values()) == sorted(r["value"] for r in known)
    assert found.data.params["size"] == "smoke"
    assert [f.path for f in mlflow.MlflowClient().list_artifacts(name)] == ["results.json"]


def test_names_of_metrics_are_such_as_mlflow_takes(run):
    names = metric_names(rows_of(run))
    assert len(set(names)) == len(names) == 3
    for name in names:
        assert len(name) <= 250
        assert all(c.isascii() and (c.isalnum() or c in "_-. /") for c in name)
        assert "" not in name.split("/")  # MLflow takes names for paths


def test_the_page_of_a_study_is_printed_and_its_run_signed(run, tmp_path, monkeypatch):
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private, folder = ed25519.Ed25519PrivateKey.generate(), shutil.copytree(run, tmp_path / "run")
    (tmp_path / "key.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setattr(pdf, "rendered", lambda html: html.encode())
    arguments = ["study", "report", str(folder), "--pdf", "--sign", str(tmp_path / "key.pem")]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert (folder / "report.pdf").read_bytes() == (folder / "report.html").read_bytes()
    verified = verification.verify(folder, private.public_key())
    assert verified.signature == "valid"
    assert "report.pdf" not in [finding.file for finding in verified.findings]
    # a page that is another takes the PDF of the one before with it
    (folder / "report.html").write_text("of an earlier version")
    printed = CliRunner().invoke(app, ["study", "report", str(folder)], catch_exceptions=False).output
    assert "report.pdf was of another page and is removed" in printed
    assert "the run is no longer as it was signed" in printed
    assert not (folder / "report.pdf").exists()
