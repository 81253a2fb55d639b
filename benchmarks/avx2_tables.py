"""results/avx2.json as Markdown. Standard library only."""

from __future__ import annotations

from math import prod


def markdown(kept: dict) -> str:
    """The tables of the parts that were measured."""
    tables = {"layers": _layers, "choices": _choices, "networks": _networks}
    parts = [f"{tables[part](kept[part]['rows'])}\n\n{kept[part]['cpu']}, one core, {kept[part]['when']}.\n"
             for part in tables if part in kept]
    return ("AVX2 and FMA without VNNI (target x86-64-v3). Written by `python -m benchmarks.avx2`; every line is one "
            "interleaved run.\n\n" + "\n".join(parts))


def _layers(rows: list[dict]) -> str:
    before = "chosen_before" in rows[0]
    lines = ["Each 3×3 layer of ResNet-18 in each family: the share of the family's ceiling inside the reduction's loop "
             "(what twice the\ninput channels cost more) and of the whole layer, how many times faster than the same "
             "family's inner loop written in C\nwith intrinsics (`lookup.c`, gcc -O3, its epilogue left out)"
             + (", and than before" if before else "") + ".\n",
             "| bits | layer | family | loop | whole | G MAC/s | × C |" + (" × before |" if before else ""),
             "|---|---|---|---|---|---|---|" + ("---|" if before else "")]
    for row in rows:
        for family, found in row["families"].items():
            share = f"{found['loop']:.2f}" if 0 < found["loop"] < 1.2 else "cannot tell"
            marks = "**" if family == row["chosen"] else ""
            lines.append(f"| {row['bits']} | {row['layer']} | {marks}{family}{marks} | {share} | {found['whole']:.2f} | "
                         f"{row['macs'] / found['seconds'] / 1e9:.0f} | {found['c_seconds'] / found['seconds']:.2f} |"
                         + (f" {found['before'] / found['seconds']:.2f} |" if "before" in found else ""))
    lines.append("\nBold: what the cost model chooses.")
    if before:
        times = [row["families"][row["chosen_before"]]["before"] / row["families"][row["chosen"]]["seconds"] for row in rows]
        lines.append(f"The chosen family over the one chosen before, as each was then: {prod(times) ** (1 / len(times)):.2f}× "
                     f"in the geometric mean of these layers, {min(times):.2f} to {max(times):.2f}.")
    return "\n".join(lines)


def _choices(rows: list[dict]) -> str:
    lines = ["Microseconds of each family, and what the cost model chooses.\n",
             "| layer | bits | popcount | dot | lookup | chosen | over the fastest |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        best = min(row["seconds"], key=row["seconds"].get)
        cells = [f"{'**' * (name == best)}{row['seconds'][name] * 1e6:.0f}{'**' * (name == best)}"
                 for name in ("popcount", "dot", "lookup")]
        lines.append(f"| {row['layer']} | {row['bits']} | {' | '.join(cells)} | {row['chosen']} | "
                     f"{row['seconds'][row['chosen']] / row['seconds'][best]:.2f} |")
    lines.append("\n" + _hits(rows, "chosen", "The cost model"))
    if "chosen_before" in rows[0]:
        lines.append(_hits(rows, "chosen_before", "Before, it"))
    return "\n".join(lines)


def _hits(rows: list[dict], which: str, who: str) -> str:
    losses = [row["seconds"][row[which]] / min(row["seconds"].values()) for row in rows]
    misses = [loss for loss in losses if loss > 1]
    most = f"; elsewhere its choice takes up to {max(misses):.2f} times as long" if misses else ""
    return (f"{who} picks the fastest of the three in {len(losses) - len(misses)} of {len(losses)}{most} "
            f"({prod(losses) ** (1 / len(losses)):.3f} in the geometric mean of all).")


def _networks(rows: list[dict]) -> str:
    before = "before" in rows[0]
    lines = ["ResNet-18 224², one thread. ONNX Runtime cannot be told to leave AVX-512 VNNI alone: where the CPU has it, its "
             "int8\nuses it, ours does not.\n",
             "| bits | ms | × ONNX Runtime int8 | × fp32 |" + (" × before |" if before else ""),
             "|---|---|---|---|" + ("---|" if before else "")]
    for row in rows:
        lines.append(f"| {row['bits']} | {row['now'] * 1e3:.2f} | {row['int8'] / row['now']:.2f} | "
                     f"{row['fp32'] / row['now']:.2f} |" + (f" {row['before'] / row['now']:.2f} |" if before else ""))
    return "\n".join(lines)
