"""What must hold of any plan."""

from mpcompile.compiler.offsets import ALIGNMENT, aligned
from mpcompile.ir.plan import Plan


def check_plan(plan: Plan) -> None:
    """Buffers that share bytes of the workspace are one, or never alive during the same call; memory is tight."""
    here = [p for p in plan.buffers if p.arg.space == "workspace"]
    for i, a in enumerate(here):
        assert a.arg.offset % ALIGNMENT == 0 and 0 <= a.arg.offset <= plan.workspace_bytes - a.buffer.nbytes
        assert -1 < a.written <= a.last_read < len(plan.calls)
        for b in here[:i]:
            apart = a.arg.offset + a.buffer.nbytes <= b.arg.offset or b.arg.offset + b.buffer.nbytes <= a.arg.offset
            view = a.arg.offset == b.arg.offset and a.written == b.written
            assert apart or view or a.last_read < b.written or b.last_read < a.written, (a.buffer.key, b.buffer.key)
    # Offsets are multiples of 64, so tiny buffers take more than their bytes.
    alive = [[p for p in here if p.written <= at <= p.last_read] for at in range(len(plan.calls))]
    padded = max((sum(aligned(p.buffer.nbytes) for p in some) for some in alive), default=0)
    assert plan.live_bytes <= plan.workspace_bytes <= 2 * max(plan.live_bytes, padded)
