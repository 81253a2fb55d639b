"""Bits as values: text and back, what is refused, and that a pair is its tuple."""

import copy
import json
import pickle

import pytest

from mpcompile.errors import UsageError
from mpcompile.ir.bits import BitCandidates, BitPair


def test_a_pair_from_text_and_back():
    assert BitPair.parse("w2a4") == BitPair(2, 4) and str(BitPair.parse("W2A4")) == "w2a4"
    pair = BitPair(1, 8)
    assert (pair.weights, pair.activations) == (1, 8) and pair == (1, 8) and {(1, 8): "x"}[pair] == "x"
    assert json.dumps([pair]) == "[[1, 8]]" and repr(pair) == "BitPair(1, 8)"


def test_a_pair_is_copied_as_one():
    for made in (copy.deepcopy(BitPair(2, 3)), pickle.loads(pickle.dumps(BitPair(2, 3)))):
        assert type(made) is BitPair and str(made) == "w2a3"


@pytest.mark.parametrize(
    "text", ["", "w", "w2", "a2", "w2a", "wa2", "w9a1", "w0a1", "w1a9", "2a2", "w12a2", "w1a2b3", " w1a2"]
)
def test_a_pair_that_is_none(text):
    with pytest.raises(UsageError, match=f"bits '{text}' are not like w2a4"):
        BitPair.parse(text)


def test_candidates_from_text_and_back():
    found = BitCandidates.parse("w1234a1248")
    assert found == BitCandidates((1, 2, 3, 4), (1, 2, 4, 8)) and str(found) == "w1234a1248"
    assert str(BitCandidates.parse("W21A331")) == "w12a13" == str(BitCandidates.of([2, 1, 1], [3, 1]))


def test_candidates_are_the_pairs_of_both():
    found = BitCandidates.of([1, 2], [4, 8])
    assert list(found) == [(1, 4), (1, 8), (2, 4), (2, 8)] and all(type(pair) is BitPair for pair in found)
    assert BitPair(2, 4) in found and BitPair(4, 2) not in found and BitPair(3, 4) not in found and "w1a4" not in found


@pytest.mark.parametrize("text", ["", "w", "w1", "a1", "w1a", "w9a1", "w0a1", "1a2", "w1a2b3", "w1 a2"])
def test_candidates_that_are_none(text):
    with pytest.raises(UsageError, match=f"bits '{text}' are not like w1234a1248"):
        BitCandidates.parse(text)
