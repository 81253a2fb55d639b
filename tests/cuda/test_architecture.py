"""Which cubins run where: NVIDIA's table, by hand."""

import pytest

from mpcompile.runtime.cuda.architecture import best_for, capability, runs_on


@pytest.mark.parametrize(
    "arch, device, runs",
    [
        ("sm_80", "sm_80", True),
        ("sm_80", "sm_86", True),
        ("sm_86", "sm_89", True),
        ("sm_86", "sm_80", False),
        ("sm_80", "sm_90", False),
        ("sm_80", "sm_87", False),  # a Jetson Orin
        ("sm_86", "sm_87", False),
        ("sm_87", "sm_87", True),
        ("sm_87", "sm_89", False),
        ("sm_70", "sm_72", False),
        ("sm_50", "sm_52", True),
        ("sm_50", "sm_53", False),
        ("sm_90a", "sm_90", True),
        ("sm_100a", "sm_103", False),
        ("sm_100", "sm_103", True),
        ("compute_80", "sm_80", False),
        ("x86_64", "sm_80", False),
    ],
)
def test_which_runs_where(arch, device, runs):
    assert runs_on(arch, device) is runs


def test_capabilities():
    assert (
        capability("sm_87") == (8, 7, "")
        and capability("sm_120") == (12, 0, "")
        and capability("sm_90a") == (9, 0, "a")
    )
    assert capability("sm_9") is None and capability("SM_90") is None


def test_the_nearest_is_taken():
    archs = ["sm_75", "sm_80", "sm_87", "sm_86", "sm_90"]
    assert best_for(archs, "sm_89") == "sm_86" and best_for(archs, "sm_80") == "sm_80"
    assert best_for(archs, "sm_87") == "sm_87" and best_for(archs, "sm_72") is None
