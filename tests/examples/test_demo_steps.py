"""A step is skipped exactly when its inputs and the files it left are what they were."""

import json

import pytest


@pytest.fixture
def make(demo_path, tmp_path):
    """make(inputs) runs one step in a fresh Steps; returns (result, whether it worked)."""
    from steps import Steps

    def run(inputs, forget=False):
        worked = []

        def work(key):
            worked.append(key)
            (tmp_path / "out.txt").write_text(json.dumps(inputs))
            return {"made from": inputs}

        steps = Steps(tmp_path, lambda line: None)
        if forget:
            steps.forget()
        return steps.run("step", "a step", inputs, ["out.txt"], work), bool(worked)

    return run


def test_same_inputs_are_done_once(make):
    assert make({"a": 1}) == ({"made from": {"a": 1}}, True)
    assert make({"a": 1}) == ({"made from": {"a": 1}}, False)


def test_other_inputs_are_done_again(make):
    make({"a": 1})
    assert make({"a": 2}) == ({"made from": {"a": 2}}, True)


@pytest.mark.parametrize("harm", ["change", "delete"])
def test_a_lost_or_changed_output_is_made_again(make, tmp_path, harm):
    make({"a": 1})
    file = tmp_path / "out.txt"
    file.write_text("other") if harm == "change" else file.unlink()
    assert make({"a": 1})[1]
    assert file.read_text() == '{"a": 1}'


def test_a_damaged_record_counts_as_none(make, tmp_path):
    make({"a": 1})
    (tmp_path / "steps.json").write_text('{"step": ')
    assert make({"a": 1})[1]


def test_forget(make):
    make({"a": 1})
    assert make({"a": 1}, forget=True)[1]


def test_an_interrupted_step_is_not_recorded(demo_path, tmp_path):
    from steps import Steps

    def interrupted(key):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Steps(tmp_path, lambda line: None).run("step", "a step", 1, [], interrupted)
    assert Steps(tmp_path, lambda line: None).done == {}
