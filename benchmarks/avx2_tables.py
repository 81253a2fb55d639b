"""results/avx2.json as Markdown. Standard library only."""

from __future__ import annotations

from math import prod

TRIED = """What was tried, and what the assembly shows (Zen 4):

* popcount: a tile's loop split the nibbles of its weights and shifted its activations, 10 of 58 vector instructions, on
  the two ports of VPSHUFB. Both are stored split now; AND, VPSHUFB and VPADDB alone are left.
* LLVM's machine combiner turned unrolled sums into trees, whose registers it spilled in the loop: 7 stores in 32 steps.
  It is off (`targets/target.py`).
* Harley-Seal's carry-save adders cost 5 logic operations each without VPTERNLOG, 35 for 8 vectors, and then a count:
  more than VPSHUFB's 6 a vector. Saturating additions run on fewer ports and are slower (149 bit-MAC/cycle against
  174).
* lookup: a table took 11 instructions and was made three times, for each line of output. Now 3.5, and lines share it.
* dot, 8 bits: VPMADDWD's 16 MAC an instruction are the ceiling of a direct product. Splitting weights or activations
  for VPMADDUBSW takes 4.75 instructions for 32 MAC, not 4. Winograd's F(2×2, 3×3) needs 16 products where the direct
  one has 36: above 1 of that ceiling; stride 2 has no such form.
* dot, 512×7×7, direct: 0.72 of the ceiling. A loop over channels outside of the taps 0.73, blocks of 32 to 128 channels
  0.56 to 0.65, all lines for each group 0.67, tiles of two vectors 0.65: the limit is not the cache. By Winograd's
  tiles it is bound by its 8.4 MB of weights: the same loops in C take 770 µs once the third cache holds them, and 950
  to 1100 before.
* Of VPMADDWD or VPMADDUBSW with an addition 1.6 a cycle are run, not 2, in whatever order: additions take ports that
  the multiplications need. Of multiplications alone it is 2.
"""


def markdown(kept: dict) -> str:
    """The tables of the parts that were measured."""
    tables = {"layers": _layers, "choices": _choices, "networks": _networks}
    parts = [
        f"{tables[part](kept[part]['rows'])}\n\n{kept[part]['cpu']}, one core, {kept[part]['when']}.\n"
        for part in tables
        if part in kept
    ]
    return (
        "AVX2 and FMA without VNNI (target x86-64-v3). Written by `python -m benchmarks.avx2`; every line is one "
        "interleaved run.\n\n" + "\n".join([*parts, TRIED])
    )


def _layers(rows: list[dict]) -> str:
    before = "chosen_before" in rows[0]
    lines = [
        "Each 3×3 layer of ResNet-18 in each family: the share of the family's ceiling inside the reduction's "
        "loop (what twice the\ninput channels cost more) and of the whole layer, how many times faster than the same "
        "family's inner loop written in C\nwith intrinsics (`lookup.c`, gcc -O3, its epilogue left out)"
        + (", and than before" if before else "")
        + ".\n",
        "| bits | layer | family | loop | whole | G MAC/s | × C |" + (" × before |" if before else ""),
        "|---|---|---|---|---|---|---|" + ("---|" if before else ""),
    ]
    for row in rows:
        for family, found in row["families"].items():
            share = f"{found['loop']:.2f}" if 0 < found["loop"] < 1.2 else "cannot tell"
            marks = "**" if family == row["chosen"] else ""
            lines.append(
                f"| {row['bits']} | {row['layer']} | {marks}{family}{marks} | {share} | "
                f"{found['whole']:.2f} | {row['macs'] / found['seconds'] / 1e9:.0f} | "
                f"{found['c_seconds'] / found['seconds']:.2f} |"
                + (f" {found['before'] / found['seconds']:.2f} |" if "before" in found else "")
            )
    lines.append("\nBold: what the cost model chooses.")
    if before:
        times = [
            row["families"][row["chosen_before"]]["before"] / row["families"][row["chosen"]]["seconds"] for row in rows
        ]
        lines.append(
            "The chosen family over the one chosen before, as each was then: "
            f"{prod(times) ** (1 / len(times)):.2f}× in the geometric mean of these layers, "
            f"{min(times):.2f} to {max(times):.2f}."
        )
    return "\n".join(lines)


def _choices(rows: list[dict]) -> str:
    names = list(rows[0]["seconds"])
    lines = [
        "Microseconds of each family, and what the cost model chooses.\n",
        f"| layer | bits | {' | '.join(names)} | chosen | over the fastest |",
        "|---|---|" + "---|" * len(names) + "---|---|",
    ]
    for row in rows:
        best = min(row["seconds"], key=row["seconds"].get)
        cells = [f"{'**' * (name == best)}{row['seconds'][name] * 1e6:.0f}{'**' * (name == best)}" for name in names]
        lines.append(
            f"| {row['layer']} | {row['bits']} | {' | '.join(cells)} | {row['chosen']} | "
            f"{row['seconds'][row['chosen']] / row['seconds'][best]:.2f} |"
        )
    lines.append("\n" + _hits(rows, "chosen", "The cost model"))
    if "chosen_before" in rows[0]:
        lines.append(_hits(rows, "chosen_before", "Before, it"))
    return "\n".join(lines)


NUMBERS = {3: "three", 4: "four"}


def _hits(rows: list[dict], which: str, who: str) -> str:
    losses = [row["seconds"][row[which]] / min(row["seconds"].values()) for row in rows]
    misses = [loss for loss in losses if loss > 1]
    most = f"; elsewhere its choice takes up to {max(misses):.2f} times as long" if misses else ""
    of = NUMBERS[len(rows[0]["seconds"])]
    return (
        f"{who} picks the fastest of the {of} in {len(losses) - len(misses)} of {len(losses)}{most} "
        f"({prod(losses) ** (1 / len(losses)):.3f} in the geometric mean of all)."
    )


def _networks(rows: list[dict]) -> str:
    before = "before" in rows[0]
    lines = [
        "ResNet-18 224², one thread. ONNX Runtime cannot be told to leave AVX-512 VNNI alone: where the CPU has "
        "it, its int8\nuses it, ours does not.\n",
        "| bits | ms | × ONNX Runtime int8 | × fp32 |" + (" × before |" if before else ""),
        "|---|---|---|---|" + ("---|" if before else ""),
    ]
    for row in rows:
        lines.append(
            f"| {row['bits']} | {row['now'] * 1e3:.2f} | {row['int8'] / row['now']:.2f} | "
            f"{row['fp32'] / row['now']:.2f} |" + (f" {row['before'] / row['now']:.2f} |" if before else "")
        )
    return "\n".join(lines)
