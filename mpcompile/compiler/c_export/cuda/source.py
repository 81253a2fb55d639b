"""The C of an exported network for CUDA devices, from its plan and cubins: NAME.c, NAME.bin, a header, an example.

The plan's calls become launches, whose arguments are places in blocks of device memory: the workspace, the weights,
scratch, and one for each input and output. NAME.bin, which the assembler takes in, has the weights, then the cubins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

from mpcompile.errors import ModelError
from mpcompile.ir.plan import Arg, Plan
from mpcompile.runtime.cuda.architecture import capability
from mpcompile.runtime.cuda.code import CudaCode, Launch
from mpcompile.runtime.cuda.module import ALIGNMENT

HERE = Path(__file__).parent
BLOCKS = ("workspace", "weights", "scratch")
"""Before those of the inputs and outputs."""
ERRORS = ("OK", "ERROR_NULL", "ERROR_NO_DRIVER", "ERROR_NO_DEVICE", "ERROR_ARCHITECTURE", "ERROR_MEMORY", "ERROR_CUDA")

Place = tuple[int, int]
"""Which block, and the byte offset there."""


@dataclass(frozen=True)
class CudaExport:
    """What the files are made from. `name`: what all that is public begins with; `target`: the board's name."""

    name: str
    plan: Plan
    code: CudaCode
    weights: bytes
    target: str
    source: str
    version: str

    @property
    def device_bytes(self) -> int:
        """Of the workspace, scratch included, on the device."""
        return self.plan.workspace_bytes + self._scratch()

    def files(self) -> dict[str, bytes]:
        """File name → contents. Raises ModelError where the plan calls what the code has not."""
        texts = {
            f"{self.name}.c": self._source(),
            f"{self.name}.h": self._filled("public.h"),
            "example.c": self._filled("example.c"),
            "CMakeLists.txt": self._filled("CMakeLists.txt"),
        }
        return {**{name: text.encode() for name, text in texts.items()}, f"{self.name}.bin": self._data()}

    # -- NAME.bin ------------------------------------------------------------------------------------------------------
    def _offsets(self) -> dict[str, int]:
        """Architecture → where its cubin lies."""
        found, at = {}, _aligned(len(self.weights))
        for arch, cubin in self.code.cubins.items():
            found[arch] = at
            at = _aligned(at + len(cubin))
        return found

    def _data(self) -> bytes:
        out = bytearray(self.weights)
        for arch, at in self._offsets().items():
            out += bytes(at - len(out)) + self.code.cubins[arch]
        return bytes(out)

    # -- NAME.c --------------------------------------------------------------------------------------------------------
    def _source(self) -> str:
        launches = self._launches()
        kernels = list(dict.fromkeys(launch.kernel for launch, _ in launches))
        shared = [max(launch.shared_bytes for launch, _ in launches if launch.kernel == kernel) for kernel in kernels]
        rows, places = [], []
        for launch, arguments in launches:
            grid, block = (", ".join(map(str, dims)) for dims in (launch.grid, launch.block))
            where = f"{len(places)}, {len(arguments)}"
            rows.append(f"{{{{{grid}}}, {{{block}}}, {launch.shared_bytes}, {kernels.index(launch.kernel)}, {where}}}")
            places += [f"{{{block}, {offset}}}" for block, offset in arguments]
        cubins = []
        for arch, at in self._offsets().items():
            major, minor, alone = capability(arch) or (0, 0, "a")
            cubins.append(f"{{{major}, {minor}, {int(bool(alone))}, {at}}}")
        plan = self.plan
        sizes = [plan.workspace_bytes, len(self.weights), self._scratch(), *(4 * prod(p.shape) for p in self._ports())]
        inputs, outputs = len(plan.inputs), len(plan.outputs)
        head = "\n".join(
            [
                f"/* {self.name}: {_plain(self.source)}, compiled by mpcompile {self.version} for {self.target}. */",
                f'#include "{self.name}.h"',
                (HERE / "driver.h").read_text(),
                f"enum {{ {', '.join(f'MP_{word} = {i}' for i, word in enumerate(ERRORS))} }};",
                f"enum {{ WORKSPACE, WEIGHTS, SCRATCH, FIRST_INPUT, FIRST_OUTPUT = FIRST_INPUT + {inputs} }};",
                f"enum {{ INPUTS = {inputs}, OUTPUTS = {outputs}, BLOCKS = FIRST_OUTPUT + OUTPUTS }};",
                f"enum {{ KERNELS = {len(kernels)}, MOST_ARGUMENTS = {max((len(a) for _, a in launches), default=0)} }};",
                f"#define Network struct {self.name}_network",
                "",
                f"#ifndef {self.name.upper()}_DATA",
                f'#define {self.name.upper()}_DATA "{self.name}.bin"',
                "#endif",
                '__asm__(".pushsection .rodata\\n"',
                f'        " .balign {ALIGNMENT}\\n"',
                f'        "{self.name}_data:\\n"',
                f'        " .incbin \\"" {self.name.upper()}_DATA "\\"\\n"',
                '        " .byte 0\\n"',
                '        ".popsection\\n");',
                f'extern const unsigned char mp_data[] __asm__("{self.name}_data") '
                '__attribute__((visibility("hidden")));',
                "",
                "/* Bytes on the device. */",
                _array("size_t", "block_bytes", map(str, sizes)),
                "/* What may have how much dynamic shared memory. */",
                _array("char *const", "kernel_names", (f'"{name}"' for name in kernels)),
                _array("int", "kernel_shared", map(str, shared)),
                "typedef struct { int major, minor, alone; size_t offset; } mp_cubin;",
                _array("mp_cubin", "cubins", cubins),
                "typedef struct { int block; uint64_t offset; } mp_argument;",
                _array("mp_argument", "arguments", places),
                "typedef struct { unsigned grid[3], threads[3], shared; int kernel, first, count; } mp_launch;",
                _array("mp_launch", "launches", rows),
                "",
            ]
        )
        return head + (HERE / "runtime.c").read_text() + self._filled("public.c")

    def _launches(self) -> list[tuple[Launch, list[Place]]]:
        """In order, each with where its arguments are."""
        found = []
        for call in self.plan.calls:
            function = self.code.functions.get(call.function)
            if function is None or function.parameters != len(call.args):
                raise ModelError(
                    f"the plan calls {call.function} with {len(call.args)} tensors, and there is none such"
                )
            places, at = [self._place(arg) for arg in call.args], 0
            for nbytes in function.scratch:
                places.append((BLOCKS.index("scratch"), at))
                at += _aligned(nbytes)
            found += [(launch, [places[i] for i in launch.arguments]) for launch in function.launches]
        if not found:
            raise ModelError("the network launches nothing")
        return found

    def _place(self, arg: Arg) -> Place:
        if arg.space in BLOCKS:
            return BLOCKS.index(arg.space), arg.offset
        return len(BLOCKS) + arg.offset + (len(self.plan.inputs) if arg.space == "output" else 0), 0

    def _scratch(self) -> int:
        """Functions run one after another: all can have the same."""
        return max((sum(map(_aligned, f.scratch)) for f in self.code.functions.values()), default=0)

    def _ports(self) -> list:
        return [*self.plan.inputs, *self.plan.outputs]

    # -- what is filled in ---------------------------------------------------------------------------------------------
    def _filled(self, template: str) -> str:
        upper, ports = self.name.upper(), []
        for kind, found in (("INPUT", self.plan.inputs), ("OUTPUT", self.plan.outputs)):
            for i, port in enumerate(found):
                dims = " × ".join(map(str, port.shape)) or "1"
                ports.append((f"{upper}_{kind}_{i}_SIZE", prod(port.shape), f"{_plain(port.name)}: {dims}"))
        words = {
            "name": self.name,
            "NAME": upper,
            "source": _plain(self.source),
            "version": self.version,
            "target": self.target,
            "archs": ", ".join(self.code.cubins),
            "workspace": str(self.device_bytes),
            "inputs": str(len(self.plan.inputs)),
            "outputs": str(len(self.plan.outputs)),
            "ports": "\n".join(f"#define {name} {size} /* {said} */" for name, size, said in ports),
            "sizes": ", ".join(name for name, _, _ in ports),
        }
        return re.sub(r"@(\w+)@", lambda found: words[found[1]], (HERE / template).read_text())


def _array(kind: str, name: str, values) -> str:
    rows = "".join(f"  {value},\n" for value in values)
    return f"static const {kind} {name}[] = {{\n{rows}}};"


def _plain(text: str) -> str:
    """Safe inside a C comment."""
    return re.sub(r"[^ -~]|\*/|/\*|@", "?", text)


def _aligned(nbytes: int) -> int:
    return nbytes + -nbytes % ALIGNMENT
