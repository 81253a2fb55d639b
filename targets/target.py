"""What the compiler, the cost model and the loader of bundles know about a board. No TVM here."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from mpcompile.targets.kind import KINDS, StorageCosts

WIDEN_DOT = 0.6
"""What it costs to add 16-bit sums of products to 32-bit ones, in steps of 16-bit sums."""

WIDEN_DOT8, MOST_DOT8 = 0.8, 8
"""The same of 8-bit sums to 16-bit ones, in steps of 8-bit sums; so many are added at the most."""

WIDEN_LOOKUP = 3.0
"""What it costs to add 8-bit sums of looked-up entries to 16-bit ones, in look-ups, by AVX2's steps."""


@dataclass(frozen=True)
class Target:
    """A board.

    `features` are flags by the names of /proc/cpuinfo; a CPU without one of them must not run its bundles. Of a CUDA
    device `arch` is its compute capability ("sm_87"), which says all, and a core is a multiprocessor. `mcpu`,
    `mattr`, `mtriple` are LLVM's ("" for the host's own triple). `popcount_bitmacs_per_cycle`, `dot_macs_per_cycle` (of
    any 8 bits, in 32-bit sums): what one core can do of these steps, from registers. `cpus`: (vendor, family, first
    model, last model) that `native` knows as this board. Cores are of the board as a rule; a native target has the
    machine's.
    """

    name: str
    description: str
    arch: str
    mcpu: str
    features: tuple[str, ...]
    vector_bits: int
    popcount_bitmacs_per_cycle: float
    dot_macs_per_cycle: float
    source: str
    """Where the two numbers come from."""
    mattr: tuple[str, ...] = ()
    mtriple: str = ""
    cores: int = 1
    dot16_macs_per_cycle: float = 0.0
    """Products of 8 bits where sums of two fit 16 bits (`dot_rate`); 0: no faster than any 8 bits."""
    kind: str = "cpu"
    """The kind of device (kind.py): how code for it is made and run."""
    dot8_macs_per_cycle: float = 0.0
    """The same where products fit 8 bits, before sums are widened; 0: no kernel adds them in 8 bits."""
    lookup_macs_per_cycle: float = 0.0
    """Products of one-bit weights by look-ups, of sums of four activations each, in 8-bit sums that are never widened; 0:
    it has no such kernel."""
    lookup_widen: float = WIDEN_LOOKUP
    """What it costs to widen such a sum, in look-ups; 0: there are none, entries are added in 16 bits."""
    cpus: tuple[tuple[str, int, int, int], ...] = ()

    @property
    def has_vnni(self) -> bool:
        """VPDPBUSD on 512-bit registers."""
        return "avx512_vnni" in self.features

    @property
    def multiplies_16_bits(self) -> bool:
        """Products of any 8 bits are PMADDWD's."""
        return self.arch == "x86_64" and not self.has_vnni

    @property
    def lookup_lanes(self) -> int:
        """Output channels of a vector of look-ups, a byte each."""
        return self.vector_bits // 8

    @property
    def lookup_sums_any(self) -> bool:
        """Whether look-ups take any number of products: 16-bit sums are widened before they are full."""
        return self.arch == "aarch64"

    @property
    def has_fma(self) -> bool:
        """A fused multiply-add instruction: without it an exact fma is computed in integers or double."""
        return "fma" in self.features

    @property
    def storage(self) -> StorageCosts:
        """What storing a tensor costs."""
        return KINDS.of(self.kind).storage

    def is_made_for(self, vendor: str, family: int, model: int) -> bool:
        """Whether `cpus` names that CPU."""
        return any((v, f) == (vendor, family) and first <= model <= last for v, f, first, last in self.cpus)

    def dot_rate(self, steps: int) -> float:
        """Products of 8 bits a cycle where so many sums of two of them fit 16 bits: 0 where not even one does.

        They are added in 16 bits, and then widened, at the cost of about half a step. Products that fit 16 bits 2·129
        times fit 8 bits once.
        """
        eight = min(MOST_DOT8, steps * 127 // 16383)
        return max(
            self.dot_macs_per_cycle,
            self.dot16_macs_per_cycle / (1 + WIDEN_DOT / steps) if steps else 0.0,
            self.dot8_macs_per_cycle / (1 + WIDEN_DOT8 / eight) if eight else 0.0,
        )

    def to_json(self) -> dict:
        """For manifests and reports: all fields, as lists and plain values."""
        return asdict(self) | {
            "features": list(self.features),
            "mattr": list(self.mattr),
            "cpus": [list(c) for c in self.cpus],
        }


@dataclass(frozen=True)
class Fleet:
    """Boards of one kind that one bundle serves, best first: a device runs the first that is of its architecture and whose
    features it has. CPUs are of one architecture."""

    name: str
    description: str
    boards: tuple[Target, ...]

    @staticmethod
    def of(board: Target) -> Fleet:
        """One board alone."""
        return Fleet(board.name, board.description, (board,))

    def to_json(self) -> dict:
        """Name, description, names of the boards."""
        return {"name": self.name, "description": self.description, "boards": [b.name for b in self.boards]}
