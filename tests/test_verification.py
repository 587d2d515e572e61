"""A run folder that was changed after its run is not verified, whatever was changed; one that was not, is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from medrobust import InputError, json_files, manifest, report, run_info, signing
from medrobust.cli.verify import CHANGED
from medrobust.criteria import language
from medrobust.run_folder import MARK, RunFolder
from medrobust.store import Store
from medrobust.verification import Verification, verify

from .commands import run
from .report_runs import Maker, checks

KINDS = (
    "results.json",
    "results.csv",
    "report.html",
    "summary.md",
    "tables.tex",
    "spec.json",
    "figures.safetensors",
    "model/model.json",
    "cells/*/rows.json",
    "cells/*/arrays.safetensors",
    MARK,
)
"""One file of each kind that a run has."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run: results, cells that they follow from, report and manifest."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    m = Maker("folder:scans", ["normal", "disease"], n=12, median=0.4, clean=0.9)
    m.clean_rows()
    m.attack_rows("pgd", saved=False)
    m.write(folder, checks=checks(["pgd"]), attacks=["pgd"])
    with RunFolder(folder, "audit") as run_:
        store, smallest = Store(folder), load_file(folder / "figures.safetensors")["min_eps.pgd"]
        for shard in (slice(8), slice(8, None)):  # as workers share the images
            spec = {"kind": "sweep", "images": f"{shard}", "attack": "PGD"}
            store.once(spec, lambda shard=shard: ({}, {"min_eps": smallest[shard]}))
        (run_.entry("model")).mkdir()
        (folder / "model" / "model.json").write_text('{"architecture": "small_cnn"}')
        results = json.loads((folder / "results.json").read_bytes())
        results = run_info.with_run(folder, "results.json", results, "medrobust audit", operator="A. Reviewer")
        run_.write_text("results.json", json.dumps(results))
        report.write(folder, locked=True)
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    """Edit results.json with a digest that fits, and write a manifest for it, as a forger without the key would."""
    results = json.loads((folder / "results.json").read_bytes())
    change(results)
    results["run"]["digest"] = json_files.digest(results)
    (folder / "results.json").write_text(json.dumps(results))
    forge(folder)


def forge(folder: Path) -> None:
    earlier = manifest.read(folder / manifest.FILE)
    entries = {name.partition("/")[0] for name in earlier.files}
    forged = manifest.made(folder, earlier.run, earlier.kind, entries, {})
    (folder / manifest.FILE).write_bytes(forged.content())


def lines(verified: Verification) -> str:
    return "\n".join(": ".join(finding) for finding in verified.findings)


def test_an_untouched_run_is_verified(finished, capsys):
    verified = verify(finished)
    assert verified.passed, lines(verified)
    listed = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert listed - set(manifest.read(finished / manifest.FILE).files) == {manifest.FILE, "medrobust-run.lock"}
    assert run("verify", finished) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("verified: ")
    assert line.endswith(f"{verified.files} files are as the run left them; not signed")


@pytest.mark.parametrize("kind", KINDS)
def test_one_byte_of_any_file_is_found(kind, copied, capsys):
    file = next(copied.glob(kind))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (finding,) = verify(copied).findings
    assert finding.file == file.relative_to(copied).as_posix()
    assert "SHA-256" in finding.what
    assert run("verify", copied, "--json") == CHANGED
    printed = json.loads(capsys.readouterr().out)
    assert printed["verified"] is False
    assert printed["findings"] == [finding._asdict()]


def test_to_render_anew_is_advised_only_where_the_results_are_as_the_run_left_them(copied):
    (copied / "summary.md").write_text("better")
    (finding,) = verify(copied).findings
    assert finding.meaning.endswith(f"; medrobust report {copied} writes it anew from results.json")
    with (copied / "results.json").open("a") as results:
        results.write(" ")
    assert "writes it anew" not in lines(verify(copied))
    edit(copied, lambda results: results["conditions"].update(model="another"))
    (copied / "summary.md").write_text("better still")
    assert "report.html: was made of other results" in (found := lines(verify(copied)))
    assert "writes it anew" not in found


def test_files_that_are_missing_added_or_links_are_found(copied):
    (copied / "spec.json").unlink()
    (copied / "model" / "model.json").unlink()
    (copied / "model" / "model.json").symlink_to(copied / "results.json")
    (copied / "notes.txt").write_text("a note")
    (copied / "elsewhere").symlink_to("/etc")
    os.mkfifo(copied / "cells" / "pipe")
    found = {f.file: f.what for f in verify(copied).findings}
    assert found == {
        "spec.json": "is missing",
        "model/model.json": "is a link, no file of the run",
        "notes.txt": "was added",
        "elsewhere": "was added: a link or no file",
        "cells/pipe": "was added: a link or no file",
    }
    shutil.rmtree(copied / "cells")
    assert [f.what for f in verify(copied).findings if f.file.startswith("cells/")] == ["4 files are missing"]


def test_what_a_manifest_written_anew_hides_is_found_where_files_contradict_each_other(copied):
    def better(results: dict) -> None:
        row = next(
            r for r in results["rows"] if r["attack"] == "pgd" and r["metric"] == "accuracy" and r["value"] < 0.5
        )
        row["value"] = 0.97

    edit(copied, better)
    found = lines(verify(copied))
    assert "report.html: was made of other results" in found
    assert "accuracy under pgd" in found


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("rows.json", "the sha256 of rows.json differs"),
        ("arrays.safetensors", "the sha256 of arrays.safetensors differs"),
    ],
)
def test_a_cell_that_was_changed_is_found_with_a_manifest_written_anew(file, what, copied):
    place = next((copied / "cells").glob(f"*/{file}"))
    if file == "rows.json":
        place.write_text(place.read_text().replace("PGD", "BIM"))
    else:
        save_file({k: np.zeros_like(v) for k, v in load_file(place).items()}, place)
    forge(copied)
    assert what in lines(verify(copied))


def test_smallest_eps_that_no_cell_holds_are_found(copied):
    arrays = load_file(copied / "figures.safetensors")
    arrays["min_eps.pgd"] = arrays["min_eps.pgd"] * np.float32(1.0001)
    save_file(arrays, copied / "figures.safetensors")
    forge(copied)
    assert "the smallest eps of images under pgd are those of no cell" in lines(verify(copied))


CRITERIA = ["accuracy@1/255 >= 0.8"]


@pytest.mark.parametrize(
    ("texts", "sha256", "first", "what"),
    [
        (CRITERIA, language.digest(CRITERIA), language.digest(CRITERIA), ""),
        (["accuracy@1/255 >= 0.1"], language.digest(CRITERIA), language.digest(CRITERIA), "not those of their SHA-256"),
        (CRITERIA, language.digest(CRITERIA), language.digest(["auroc >= 0.9"]), "changed after the run began"),
        ([], "", language.digest(CRITERIA), "changed after the run began"),
    ],
)
def test_a_criterion_that_was_changed_after_the_run_is_found(texts, sha256, first, what, copied):
    def judge(results: dict) -> None:
        results["criteria"] = {"texts": texts, "sha256": sha256, "begun_with": first, "baseline": None, "judged": []}

    opening = CRITERIA if first == language.digest(CRITERIA) else ["auroc >= 0.9"]
    (copied / "spec.json").write_text(json.dumps({"criteria": {"texts": opening, "sha256": first}}))
    edit(copied, judge)
    found = [finding for finding in verify(copied).findings if finding.file != "report.html"]
    assert [what in finding.what for finding in found] == [True] * bool(what)
    (copied / "spec.json").write_text("{}")
    forge(copied)
    assert "holds other criteria than results.json says the run began with" in lines(verify(copied))


@pytest.mark.parametrize(
    ("texts", "what"),
    [(CRITERIA, ""), (["accuracy@1/255 >= 0.1"], "spec.json: holds criteria that are not those of their SHA-256")],
)
def test_criteria_that_were_edited_in_the_configuration_are_found(texts, what, copied):
    sha256 = language.digest(CRITERIA)
    stated = {"texts": CRITERIA, "sha256": sha256, "begun_with": sha256, "baseline": None, "judged": []}
    (copied / "spec.json").write_text(json.dumps({"criteria": {"texts": texts, "sha256": sha256}}))
    edit(copied, lambda results: results.update(criteria=stated))
    assert [f"{f.file}: {f.what}" for f in verify(copied).findings if f.file != "report.html"] == [what] * bool(what)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, ""),
        ({"verdict": "inconclusive"}, ""),
        ({"verdict": "fail"}, "which does not follow from its interval"),
        ({"low": None, "high": None}, "which does not follow from its interval"),
        ({"value": 0.99}, "by a number that no row holds"),
        ({"criterion": "most"}, "cannot be read"),
    ],
)
def test_a_verdict_that_does_not_follow_is_found(change, what, copied):
    text = "accuracy >= 0.1"

    def judge(results: dict) -> None:
        row = next(r for r in results["rows"] if r["kind"] == "clean" and r["metric"] == "accuracy")
        entry = {"criterion": text, "verdict": "pass", **{k: row[k] for k in ("value", "low", "high", "n")}, **change}
        results["criteria"] = {"texts": [text], "sha256": language.digest([text]), "judged": [entry]}

    edit(copied, judge)
    found = lines(verify(copied))
    assert (what in found) if what else ("accuracy >= 0.1" not in found)


def test_what_a_page_no_longer_has_leaves_the_manifest(copied):
    with RunFolder(copied, None) as opened:
        opened.write_text("criteria.xml", "<testsuites/>")
    with RunFolder(copied, None) as opened:
        opened.remove("criteria.xml")
    assert verify(copied).passed


def test_a_page_rendered_anew_keeps_the_run_verified_and_hides_nothing(copied):
    before = (copied / manifest.FILE).read_bytes()
    (copied / "report.html").write_text("edited")
    cell = next((copied / "cells").glob("*/rows.json"))
    cell.write_text(cell.read_text() + " ")
    report.write(copied)
    assert (copied / manifest.FILE).read_bytes() == before
    assert [f.file for f in verify(copied).findings] == [cell.relative_to(copied).as_posix()]


def killed(folder: RunFolder) -> None:
    raise KeyboardInterrupt


def test_a_command_that_goes_on_takes_no_changed_cell_for_its_own(copied):
    """Cells that it did not write are in its manifest as they were, those that it wrote as they are."""
    rows, arrays = sorted(copied.glob("cells/*/rows.json")), sorted(copied.glob("cells/*/arrays.safetensors"))
    arrays[0].write_bytes(bytes(len(arrays[0].read_bytes())))
    with RunFolder(copied, "audit") as run_:
        run_.begin()
        made_again = copied / "again"
        shutil.copytree(rows[1].parent, made_again)
        (made_again / "rows.json").write_bytes(rows[1].read_bytes() + b"\n")
        shutil.rmtree(rows[1].parent)
        os.replace(made_again, rows[1].parent)
        os.utime(rows[1].parent)
    changed = {f.file for f in verify(copied).findings}
    assert changed == {arrays[0].relative_to(copied).as_posix()}


def test_a_run_that_is_killed_before_its_manifest_says_so_and_is_mended(copied, monkeypatch, capsys):
    before = (copied / manifest.FILE).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "_write_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            report.write(copied)
    assert run("verify", copied) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "has no manifest.json: the command that wrote it last was killed before its end" in error
    assert f"medrobust report {copied} writes it anew" in error
    assert run("report", copied) == 0
    assert (copied / manifest.FILE).read_bytes() == before
    assert run("verify", copied) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no readable JSON"),
        ("{}", "is no manifest of a run that this version reads"),
        (
            json.dumps({"manifest": "medrobust run", "format": 1, "run": "a", "kind": "audit", "files": {"../x": {}}}),
            "no path",
        ),
        (
            json.dumps({"manifest": "medrobust run", "format": 1, "run": "a", "kind": "audit", "files": {"x": {}}}),
            "no SHA-256",
        ),
    ],
)
def test_a_broken_manifest_is_one_line(content, message, copied, capsys):
    (copied / manifest.FILE).write_text(content)
    assert run("verify", copied) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error
    assert "restore it from a copy of the run" in error


def test_a_manifest_that_was_removed_is_no_killed_command(copied, capsys):
    (copied / manifest.FILE).unlink()
    assert run("verify", copied) == 2
    assert "which hides any change made before" in capsys.readouterr().err


def test_a_manifest_of_another_run_or_behind_a_link_is_found_and_none_writes_a_line_of_its_own(copied, capsys):
    content = json.loads((copied / manifest.FILE).read_bytes())
    content["files"]["x\nverified: run: 9 files"] = {"bytes": 1, "sha256": 64 * "0"}
    (copied / manifest.FILE).write_text(json.dumps({**content, "run": "another"}))
    assert run("verify", copied) == CHANGED
    printed = capsys.readouterr().out
    assert f"{manifest.FILE}: is of another run than {MARK}" in printed
    assert "\nverified" not in printed
    (copied / manifest.FILE).rename(copied.parent / "outside.json")
    (copied / manifest.FILE).symlink_to(copied.parent / "outside.json")
    assert run("verify", copied) == 2
    assert "manifest.json is a link" in capsys.readouterr().err


def test_a_folder_of_the_users_own_has_no_manifest(tmp_path):
    with pytest.raises(InputError, match="is no run folder of medrobust"):
        verify(tmp_path)


# -- signatures ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    """Private and public keys as PEM and as OpenSSH writes them; key.pem and key.ssh are one key."""
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder, key, other = tmp_path_factory.mktemp("keys"), Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    pem, pkcs8, ssh, bare = s.Encoding.PEM, s.PrivateFormat.PKCS8, s.PrivateFormat.OpenSSH, s.NoEncryption()
    public = (s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    contents = {
        "key.pem": key.private_bytes(pem, pkcs8, bare),
        "key.ssh": key.private_bytes(pem, ssh, bare),
        "locked.pem": key.private_bytes(pem, pkcs8, s.BestAvailableEncryption(b"secret")),
        "public.pem": key.public_key().public_bytes(*public),
        "public.ssh": key.public_key().public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH),
        "other.pem": other.public_key().public_bytes(*public),
        "curve.pem": generate_private_key(SECP256R1()).private_bytes(pem, pkcs8, bare),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(("private", "public"), [("key.pem", "public.ssh"), ("key.ssh", "public.pem")])
def test_a_signed_run_is_verified_with_its_public_key_only(private, public, keys, copied, capsys):
    assert run("report", copied, "--sign", keys / private) == 0
    capsys.readouterr()
    assert run("verify", copied, "--key", keys / public) == 0
    assert "signed with that key" in capsys.readouterr().out
    assert run("verify", copied, "--key", keys / "other.pem") == CHANGED
    assert "is not the signature of manifest.json by that key" in capsys.readouterr().out
    assert run("report", copied) == 0
    assert "as it was signed" not in capsys.readouterr().out  # the same page
    assert run("report", copied, "--require", "accuracy >= 0") == 0
    assert "the run is no longer as it was signed; --sign KEY signs it anew" in capsys.readouterr().out
    (copied / "spec.json").write_text("{}")
    forge(copied)
    assert verify(copied, signing.public_key(keys / public)).signature == "invalid"
    assert not [p for p in copied.rglob("*") if p.is_file() and b"PRIVATE KEY" in p.read_bytes()]


def test_a_run_without_the_signature_that_was_asked_for_is_not_verified(keys, copied):
    assert verify(copied, signing.public_key(keys / "public.pem")).signature == "missing"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there")
def test_openssl_checks_the_signature_as_documented(keys, copied):
    signing.sign(copied, signing.private_key(keys / "key.pem"))
    shutil.copy(keys / "public.pem", copied)
    line = "openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in manifest.json -sigfile manifest.json.sig"
    assert line in (Path(__file__).parent.parent / "docs" / "evidence.md").read_text()
    assert subprocess.run(line.split(), cwd=copied, capture_output=True, check=False).returncode == 0
    (copied / manifest.FILE).write_bytes((copied / manifest.FILE).read_bytes() + b" ")
    assert subprocess.run(line.split(), cwd=copied, capture_output=True, check=False).returncode != 0


def test_a_key_with_a_passphrase_takes_it_from_the_environment(keys, monkeypatch):
    monkeypatch.delenv(signing.PASSPHRASE, raising=False)
    with pytest.raises(InputError, match="may have a passphrase: set MEDROBUST_KEY_PASSPHRASE"):
        signing.private_key(keys / "locked.pem")
    monkeypatch.setenv(signing.PASSPHRASE, "wrong")
    with pytest.raises(InputError, match="is no private key that can be read"):
        signing.private_key(keys / "locked.pem")
    monkeypatch.setenv(signing.PASSPHRASE, "secret")
    assert signing.private_key(keys / "locked.pem").public_key() == signing.public_key(keys / "public.pem")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("public.pem", "is no private key that can be read"),
        ("curve.pem", "another kind than Ed25519"),
        ("no.pem", "cannot be read"),
    ],
)
def test_what_is_no_key_is_one_line_before_anything_is_computed(name, message, keys, tmp_path, capsys):
    assert run("audit", "--sign", keys / name, "--out", tmp_path / "out") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error
    assert not (tmp_path / "out").exists()


def test_the_record_names_operator_commit_and_code_where_it_may(finished):
    record = json.loads((finished / "results.json").read_bytes())["run"]
    assert record["operator"] == "A. Reviewer"
    assert len(record["code"]) == 64
    page = (finished / "report.html").read_text()
    assert "A. Reviewer" in page
    assert record["code"] in page
