"""One bundle for several CPUs: what it holds, which variant is picked, and that all give the same bits."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.api.verify import verify
from mpcompile.cli import main
from mpcompile.errors import ModelError, TargetError, UsageError
from mpcompile.runtime import open_bundle
from mpcompile.runtime.archive import read_archive, read_manifest
from mpcompile.runtime.variants import pick, variants_of
from mpcompile.targets import cpu, load_fleet, load_target

MODEL = Path(__file__).parents[1] / "data" / "brevitas_cnn_w2a2.onnx"
FLEET = """
description = "three levels"
boards = ["x86-64-v4-vnni-vpopcntdq", "x86-64-v3", "x86-64-v2"]
"""
LEVELS = ["x86-64-v4-vnni-vpopcntdq", "x86-64-v3", "x86-64-v2"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "every.toml").write_text(FLEET)
    return compile_model(MODEL, folder / "every.toml", folder / "m.mpc", dump_ir=folder / "ir")


@pytest.fixture
def a_cpu_with(monkeypatch):
    def set_features(features, arch="x86_64"):
        monkeypatch.setattr(cpu, "features", lambda: frozenset(features))
        monkeypatch.setattr(cpu, "arch", lambda: arch)
        monkeypatch.setattr(cpu, "name", lambda: "Some CPU")

    return set_features


def variants(bundle):
    return variants_of(bundle, read_manifest(bundle))


def test_every_variant_that_runs_here_equals_the_reference_and_the_others(bundle):
    x = np.load(MODEL.with_suffix(".npz"))["x"]
    outputs = {}
    for variant in variants(bundle):
        if variant.fits:
            with open_bundle(bundle, 1, variant=variant.name) as opened:
                assert opened.variant.name == variant.name and opened.layers == variant.layers
                assert verify(MODEL, opened, x[:2]).equal
                outputs[variant.name] = opened.run(x)
    assert set(outputs) == {name for name in LEVELS if cpu.features().issuperset(load_target(name).features)}
    first = outputs.pop(next(iter(outputs)))
    for name, y in outputs.items():
        np.testing.assert_array_equal(y, first, name)


def test_the_best_is_picked_for_each_cpu(bundle, a_cpu_with):
    for name in LEVELS:
        a_cpu_with(load_target(name).features)
        assert pick(bundle, variants(bundle)).name == name
    a_cpu_with(load_target("zen5").features)
    assert pick(bundle, variants(bundle)).name == LEVELS[0]
    a_cpu_with(set(load_target("x86-64-v4").features) - {"avx512bw"})
    assert pick(bundle, variants(bundle)).name == "x86-64-v3"


def test_a_lesser_variant_is_what_is_loaded_on_a_lesser_cpu(bundle, a_cpu_with):
    a_cpu_with(load_target("x86-64-v2").features)
    with open_bundle(bundle, 1) as opened:
        assert opened.variant.name == "x86-64-v2"
        assert opened.run(np.load(MODEL.with_suffix(".npz"))["x"]).shape[0] > 1


def test_a_cpu_that_none_fits_is_refused(bundle, a_cpu_with):
    a_cpu_with({"sse2", "pni", "ssse3"})
    with pytest.raises(
        TargetError,
        match=r"its variant x86-64-v2, which asks for least, needs .*sse4_2, which this "
        r"CPU \(Some CPU\) lacks",
    ) as caught:
        open_bundle(bundle, 1)
    assert "\n" not in str(caught.value)
    a_cpu_with({"neon"}, "aarch64")
    with pytest.raises(TargetError, match="was built for x86_64, this machine is aarch64"):
        open_bundle(bundle, 1)


def test_a_variant_that_is_asked_for(bundle, a_cpu_with):
    with pytest.raises(UsageError, match=f"has no variant zen9: it has {', '.join(LEVELS)}"):
        open_bundle(bundle, 1, variant="zen9")
    a_cpu_with(load_target("x86-64-v3").features)
    with pytest.raises(TargetError, match="its variant x86-64-v4-vnni-vpopcntdq needs avx512f"):
        open_bundle(bundle, 1, variant="x86-64-v4-vnni-vpopcntdq")
    with open_bundle(bundle, 1, variant="x86-64-v2") as opened:
        assert opened.variant.name == "x86-64-v2"


def test_a_damaged_member_of_an_unused_variant_is_refused(bundle, tmp_path):
    used = pick(bundle, variants(bundle))
    for name, data in read_archive(bundle).members.items():
        if name != used.library and name not in used.weights:
            with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(tmp_path / "bad.mpc", "w") as new:
                for other in old.namelist():
                    new.writestr(other, old.read(other) if other != name else bytes([data[0] ^ 1]) + data[1:])
                new.comment = old.comment
            with pytest.raises(ModelError, match="the sha256 of .* does not hold"):
                open_bundle(tmp_path / "bad.mpc", 1)
            break
    else:
        pytest.fail("every member is used")


def test_constants_are_stored_once(bundle):
    """Beside each variant compiled alone: the same constants, where its plan says; in all, fewer bytes."""
    contents = read_archive(bundle)
    found = {v.name: v for v in variants(bundle)}
    assert any("+" in name for name in contents.members)
    stored = sum(len(data) for name, data in contents.members.items() if name.endswith(".weights"))
    assert stored < sum(len(contents.members[name]) for v in found.values() for name in v.weights)


def test_each_board_has_its_families_and_its_dump(bundle):
    for variant in variants(bundle):
        assert variant.target == load_target(variant.name).to_json()
        assert any(part["family"] for row in variant.layers for part in row.get("parts", ()))
        assert (bundle.parent / "ir" / variant.name / "01-import.txt").read_text()


def test_what_is_allowed_on_one_board_is_not_for_several(tmp_path):
    with pytest.raises(UsageError, match="target x86-64 stands for several boards"):
        compile_model(MODEL, "x86-64", tmp_path / "m.mpc", allowed={"conv": {(0, 0): ("dot",)}})
    assert load_fleet("native").boards == (load_target("native"),)
    with pytest.raises(TargetError, match="stands for several boards, here it must be one: use x86-64-v4-vnni"):
        load_target("x86-64")


def test_verbs(bundle, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runnable = [v.name for v in variants(bundle) if v.fits]
    least = runnable[-1]
    np.savez("x.npz", x=np.load(MODEL.with_suffix(".npz"))["x"][:1])
    for verb in (
        ["run", str(bundle), "--input", "x.npz", "--output", "y.npz"],
        ["bench", str(bundle), "--rounds", "1", "--threads", "1"],
        ["verify", str(MODEL), str(bundle), "--inputs", "x.npz"],
    ):
        assert main([*verb, "--variant", least, "--json", "told.json"]) == 0
        assert json.loads(Path("told.json").read_text())["variant"] == least
        assert least in capsys.readouterr().out
        assert main([*verb, "--variant", "zen9"]) == 2
    assert main(["verify", str(MODEL), str(bundle), "--inputs", "x.npz", "--variant", "all", "--json", "v.json"]) == 0
    assert list(json.loads(Path("v.json").read_text())["variants"]) == runnable
    assert main(["inspect", str(bundle), "--json", "i.json"]) == 0
    told = json.loads(Path("i.json").read_text())["variants"]
    assert [v["target"]["name"] for v in told] == LEVELS and all(v["library_bytes"] > 1000 for v in told)
    assert [v["runs_here"] for v in told] == [name in runnable for name in LEVELS]
    assert "is what runs" in capsys.readouterr().out
