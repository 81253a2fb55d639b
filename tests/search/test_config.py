"""Configuration files: what is read, and that every error names file and key."""

import json
import re

import pytest

from mpcompile.cli import main, starter
from mpcompile.errors import ModelError, UsageError
from mpcompile.ir.bits import BitPair
from mpcompile.search import config, schema
from mpcompile.search.budgets import Budget

WEIGHED = 'search = {method = "edmips"}\n'
GOOD = 'objective = {targets = ["60 %"]}\n'


def read(tmp_path, text):
    (tmp_path / "c.toml").write_text(text)
    return config.read(tmp_path / "c.toml")


def test_defaults(tmp_path):
    found = read(tmp_path, GOOD)
    assert found.search.weights == [1, 2, 3, 4, 8] and found.data.path == "" and found.objective.kind == "latency"
    assert found.budgets() == [Budget("target-60pc", "share", 0.6)]


def test_the_docstring_s_example_is_one(tmp_path):
    text = "\n".join(line for line in config.__doc__.splitlines() if line.startswith("    "))
    found = read(tmp_path, text.replace("    ", "", 1))
    assert found.data.path == str(tmp_path / "fashion") and found.measure.threads == 1 and len(found.budgets()) == 3


def test_the_quantizers_are_those_there_are():
    quantizers = pytest.importorskip("mpcompile.search.quantizers")
    assert {"weight": tuple(quantizers.WEIGHTS), "activation": tuple(quantizers.ACTIVATIONS)} == config.QUANTIZERS


def test_budgets(tmp_path):
    found = read(tmp_path, 'objective = {targets = ["2.5 ms", "300us", "10 %"]}')
    assert [(b.kind, pytest.approx(b.amount)) for b in found.budgets()] == [
        ("latency", 2.5e-3),
        ("latency", 3e-4),
        ("share", 0.1),
    ]
    found = read(tmp_path, 'objective = {kind = "bitops", targets = ["1.5 GBitOps"]}')
    assert found.budgets()[0].amount == 1.5e9
    found = read(tmp_path, 'objective = {kind = "bitops", targets = ["w2a4"]}')
    assert found.budgets() == [Budget("target-w2a4", "uniform", 1.0, BitPair(2, 4))]
    found = read(tmp_path, 'objective = {targets = ["96 % of w2a4"]}')
    assert found.budgets() == [Budget("target-w2a4-96pc", "uniform", 0.96, BitPair(2, 4))]
    assert [b.kind for b in read(tmp_path, WEIGHED + "objective = {weights = [0.1, 1]}").budgets()] == ["weight"] * 2


@pytest.mark.parametrize(
    "text, named",
    [
        ("objective = {", "no TOML"),
        ("", "objective"),
        ('objective = {targets = ["60 %"], weights = [1.0]}', "objective"),
        ('objective = {targets = ["60 parsecs"]}', "objective.targets"),
        ('objective = {targets = ["w2a7"]}', "objective.targets"),
        (GOOD + 'network = {weight = "lsq"}', "network.weight"),
        ('objective = {targets = ["-1 ms"]}', "objective.targets"),
        ('objective = {targets = ["1..2 ms"]}', "objective.targets"),
        ('objective = {targets = ["0 ms"]}', "objective.targets"),
        ('objective = {targets = ["60 %", "60%"]}', "objective.targets"),
        ('objective = {targets = ["1 GBitOps"]}', "objective.targets"),
        ('objective = {kind = "energy", targets = ["60 %"]}', "objective.kind"),
        ("objective = 3", "objective"),
        (GOOD + "sede = 1", "sede"),
        (GOOD + "seed = 1.5", "seed"),
        (GOOD + "seed = true", "seed"),
        (GOOD + "[search]\nweights = [1, 9]", "search.weights"),
        (GOOD + "[search]\nweights = [2]", "search.weights"),
        (GOOD + '[search]\nweights = ["2"]', "search.weights"),
        (GOOD + '[search]\nepochs = "many"', "search.epochs"),
        (GOOD + "[search]\nbatch = 1", "search.batch"),
        (GOOD + "[search]\nepoch = 3", "search.epoch"),
        (GOOD + '[search]\nmethod = "magic"', "search.method"),
        (GOOD + "[network]\nblocks = [1]", "network.blocks"),
        (GOOD + "[network]\nwidths = []", "network.widths"),
        (GOOD + "[data]\nside = 4", "data.side"),
        (GOOD + '[baselines]\nuniform = ["w2"]', "baselines.uniform"),
        (GOOD + '[baselines]\nuniform = ["w5a5"]', "baselines.uniform"),
        (GOOD + "[baselines]\nfloat = 1", "baselines.float"),
        (GOOD + "[retrain]\nrate = 0", "retrain.rate"),
        (GOOD + "[measure]\nrounds = 0", "measure.rounds must be a whole number of at least 1, not 0"),
        (GOOD + "[search]\nbatch = 1", "search.batch must be a whole number of at least 2, not 1"),
        (GOOD + "[search]\nrate = inf", "search.rate must be a number above 0, not inf"),
        (GOOD + "[search]\nrate = nan", "search.rate must be a number above 0, not nan"),
        (GOOD + "[search]\nwarmup = -1", "search.warmup must be a number of at least 0, not -1"),
        (GOOD + "[search]\nweights = [1, 2, 2]", "search.weights must be without repetition"),
        (GOOD + "[search]\nweights = [1, 9]", "each a whole number from 1 to 8, not [1, 9]"),
        (GOOD + "[network]\nstem_stride = 3", "network.stem_stride must be 1 or 2, not 3"),
        (GOOD + '[baselines]\nuniform = ["w2"]', "each text like \"w2a4\", bits from 1 to 8, not ['w2']"),
        (GOOD + "[baselines]\nuniform = [2]", "baselines.uniform must be a list, each text like"),
        (GOOD + '[baselines]\nuniform = ["w2a2", "W2A2"]', "baselines.uniform must be without repetition"),
        (GOOD + "[baselines]\nfloat = 1", "baselines.float must be true or false, not 1"),
        (GOOD + "[search]\nepoch = 3", "there is no key search.epoch; search.method, "),
        (GOOD + "sede = 1", "there is no key sede; seed, module, data, "),
        ("objective = 3", "objective must be a table, not 3"),
        (
            "objective = {weights = [0.1]}",
            "search.method must be one of ebs, edmips beside objective.weights, not 'ilp'",
        ),
        (WEIGHED + "objective = {weights = [0.1, 0.1]}", "objective.weights must be without repetition"),
    ],
)
def test_errors_name_file_and_key(tmp_path, text, named):
    with pytest.raises(ModelError) as caught:
        read(tmp_path, text)
    assert (
        str(tmp_path / "c.toml") in str(caught.value) and named in str(caught.value) and "\n" not in str(caught.value)
    )


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="nowhere.toml"):
        config.read(tmp_path / "nowhere.toml")


def test_bits_are_typed(tmp_path):
    found = read(tmp_path, GOOD + '[baselines]\nuniform = ["w1a2", "W8A8"]\n[search]\nweights = [8, 1]')
    assert found.baselines.uniform == [BitPair(1, 2), BitPair(8, 8)]
    assert all(type(bits) is BitPair for bits in found.baselines.uniform)
    assert str(found.search.bits) == "w18a12348"


def test_a_configuration_as_json_is_what_the_file_says(tmp_path):
    given = {"objective": {"kind": "bitops", "targets": ["60 %"]}, "baselines": {"uniform": ["w2a2"], "float": True}}
    text = 'objective = {kind = "bitops", targets = ["60 %"]}\nbaselines = {uniform = ["w2a2"], float = true}'
    found = read(tmp_path, text).to_json()
    assert found["objective"] == {**given["objective"], "weights": []}
    assert found["baselines"] == {**given["baselines"], "int8": False} and found["data"]["path"] == ""


def test_every_key_is_described_and_every_default_accepted(tmp_path):
    """What the documentation's table is made from."""
    found = list(schema.keys(config.Config))
    assert len(found) == len({k.path for k in found}) == 70 and all(k.description and k.type for k in found)
    by_path = {k.path: k for k in found}
    assert by_path["search.weights"].default == [1, 2, 3, 4, 8] and by_path["pretrain.rate"].default == 2e-3
    assert by_path["data.side"].type == "a whole number of at least 8" and by_path["seed"].section == ""
    lines = [f"{k.path} = {json.dumps(k.default)}" for k in found if k.path != "objective.targets"]
    read(tmp_path, "\n".join(['objective.targets = ["60 %"]', *lines]))


def test_a_key_left_out_of_a_table_has_its_default(tmp_path):
    found = read(tmp_path, GOOD + "[pretrain]\nepochs = 3\n[retrain]\nepochs = 4")
    assert (found.pretrain.rate, found.retrain.rate) == (2e-3, 1e-3)


def test_keys_tell_configurations_apart(tmp_path):
    one, other = read(tmp_path, GOOD), read(tmp_path, GOOD + "[retrain]\nepochs = 3")
    assert one.key("search") == other.key("search") and one.key("retrain") != other.key("retrain")


def test_reading_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, mpcompile.search.config, mpcompile.api.search; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", starter.STARTERS)
def test_a_file_to_begin_with_is_read_and_says_every_key(tmp_path, name):
    text = starter.starter(name)
    found = read(tmp_path, text)
    for path, value in {**starter.COMMON, **starter.STARTERS[name].given}.items():
        section, _, key = path.rpartition(".")
        kept = getattr(getattr(found, section) if section else found, key)
        assert schema.plain(kept) == (str(tmp_path / value) if path == "data.path" else value)
    uncommented = re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE).replace("weights = []", "")
    assert read(tmp_path, uncommented) == found, "what is commented out is not what holds without it"
    assert max(map(len, text.splitlines())) <= 120


def test_a_file_to_begin_with_is_written_once(tmp_path, capsys):
    path = tmp_path / "search.toml"
    assert main(["search", "--init", "digits", "-o", str(path)]) == 0
    assert config.read(path).data.path == ""
    path.write_text("mine")
    assert main(["search", "--init", "digits", "-o", str(path)]) != 0 and path.read_text() == "mine"
    assert "there already" in capsys.readouterr().err
    assert main(["search", "--init", "resnet9", "-o", str(tmp_path / "x")]) != 0
    assert "resnet18" in capsys.readouterr().err
    assert main(["search", "-o", str(path)]) != 0 and main(["search", str(path), "--init", "digits", "-o", "x"]) != 0
