"""The C of an exported network, from its plan: a private table of calls, a public header, an example, a CMake file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from mpcompile.errors import UsageError
from mpcompile.ir.plan import Arg, Plan
from mpcompile.targets import Target

ALIGNMENT = 64
SPACES = {"workspace": "MP_WORKSPACE", "weights": "MP_WEIGHTS", "input": "MP_INPUT", "output": "MP_OUTPUT"}
CODES = {"int": 0, "uint": 1, "float": 2}
"""DLPack's type codes."""

X86_FEATURES = {
    "cx16": "",
    "lahf_lm": "",
    "xsave": "",
    "movbe": "",
    "f16c": "",
    "abm": "",
    "pni": "sse3",
    "ssse3": "ssse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "popcnt": "popcnt",
    "avx": "avx",
    "avx2": "avx2",
    "bmi1": "bmi",
    "bmi2": "bmi2",
    "fma": "fma",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512_vnni": "avx512vnni",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_bitalg": "avx512bitalg",
    "avx512vbmi": "avx512vbmi",
    "avx512_vbmi2": "avx512vbmi2",
}
"""/proc/cpuinfo's name → what __builtin_cpu_supports calls it; "": every CPU with AVX2 or SSE4.2 has it as well."""
ARM_FEATURES = {
    "aarch64": {"fp": 1 << 0, "asimd": 1 << 1, "asimddp": 1 << 20},
    "arm": {"neon": 1 << 12, "vfpv4": 1 << 16},
}
"""/proc/cpuinfo's name → bit of AT_HWCAP (Linux, asm/hwcap.h)."""

TAKEN = frozenset(
    """
    mp runtime aio aliases alloca ar argp argz assert byteswap complex cpio crypt ctype dirent dlfcn elf endian envz err
    errno error execinfo fcntl features fenv fmtmsg fnmatch fstab fts ftw gconv getopt glob grp gshadow iconv ifaddrs
    inttypes iso646 langinfo lastlog libgen libintl limits link locale malloc math mcheck memory mntent monetary mqueue
    netdb nl_types nss obstack paths poll printf proc_service pthread pty pwd re_comp regex regexp resolv sched search
    semaphore setjmp sgtty shadow signal spawn stab stdalign stdarg stdatomic stdbool stddef stdint stdio stdio_ext stdlib
    stdnoreturn string strings syscall sysexits syslog tar termio termios tgmath thread_db threads time ttyent uchar
    ucontext ulimit unistd utime utmp utmpx values varargs wait wchar wctype wordexp""".split()
)
"""Names that no network may have: NAME.h would hide a header of the C library, or of the library's own C."""


@dataclass(frozen=True)
class Export:
    """What the sources are made from. `scratch`: bytes that a kernel may ask for; `stack`: those of its buffers that lie
    there; `name`: prefix of all that is public."""

    name: str
    plan: Plan
    target: Target
    scratch: int
    stack: int
    source: str
    version: str

    @property
    def upper(self) -> str:
        return self.name.upper()

    @property
    def port_bytes(self) -> list[int]:
        return [4 * prod(p.shape) for p in (*self.plan.inputs, *self.plan.outputs)]

    @property
    def base_bytes(self) -> int:
        """Of the workspace, without scratch."""
        return _aligned(self.plan.workspace_bytes) + self.copies_bytes

    @property
    def copies_bytes(self) -> int:
        return sum(map(_aligned, self.port_bytes))

    @property
    def scratch_bytes(self) -> int:
        return max(ALIGNMENT, _aligned(self.scratch))


def identifier(text: str) -> str:
    """A C identifier from a file's name. Raises UsageError where nothing of it can stay."""
    found = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_").lower()
    if not found:
        raise UsageError(f"no C name can be made from {text!r}: give one with --name")
    return f"net_{found}" if found[0].isdigit() or found in TAKEN else found


def check_name(name: str) -> str:
    """Raises UsageError where `name` cannot begin C identifiers, or name a header."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(f"--name {name!r} must begin with a lower-case letter and hold only a-z, 0-9 and _")
    if name in TAKEN:
        raise UsageError(f"--name {name}: {name}.h would hide another header of that name; net_{name} will do")
    return name


# -- the private part ------------------------------------------------------------------------------------------------
def table_c(export: Export) -> str:
    """table.c: the plan as data, and the public functions."""
    shapes: list[int] = []
    at: dict[tuple[int, ...], int] = {}
    arguments, calls = [], []
    for call in export.plan.calls:
        calls.append(f"    {{__tvm_ffi_{call.function}, {len(arguments)}, {len(call.args)}}},")
        for arg in call.args:
            if arg.shape not in at:
                at[arg.shape] = len(shapes)
                shapes += arg.shape
            arguments.append(f"    {_argument(arg, at[arg.shape])},")
    kernels = dict.fromkeys(call.function for call in export.plan.calls)
    return "\n".join(
        [
            f"/* {export.name}: {export.source}, compiled by mpcompile {export.version} for {export.target.name}. */",
            f'#include "{export.name}.h"',
            '#include "runtime.h"',
            "",
            *_cpu_c(export.target),
            "",
            *(f"int __tvm_ffi_{k}(void *, const TVMFFIAny *, int32_t, TVMFFIAny *);" for k in kernels),
            f"extern const unsigned char {export.name}_weights[];",
            "",
            f"static const int64_t shapes[] = {{{', '.join(map(str, shapes or [0]))}}};",
            "",
            "/* offset, shape, space, ndim, code, bits */",
            "static const mp_argument arguments[] = {",
            *arguments,
            "};",
            "",
            "static const mp_call calls[] = {",
            *calls,
            "};",
            "",
            f"static const uint64_t port_bytes[] = {{{', '.join(map(str, export.port_bytes))}}};",
            "",
            f"static const mp_network network = {{calls, {len(calls)}, arguments, shapes, {export.name}_weights,",
            f"    {_aligned(export.plan.workspace_bytes)}, {export.copies_bytes}, {export.scratch_bytes},"
            f" {len(export.plan.inputs)}, {len(export.plan.outputs)}, port_bytes}};",
            _FUNCTIONS.replace("@name@", export.name),
        ]
    )


_FUNCTIONS = """
int @name@_run(const float *const *inputs, float *const *outputs, void *workspace, size_t workspace_bytes) {
  return mp_run(&network, inputs, outputs, workspace, workspace_bytes, 1, 0, 0);
}

int @name@_run_parallel(const float *const *inputs, float *const *outputs, void *workspace, size_t workspace_bytes,
                        int tasks, @name@_parallel_for parallel_for, void *context) {
  return mp_run(&network, inputs, outputs, workspace, workspace_bytes, tasks, parallel_for, context);
}

const char *@name@_error(int code) {
  switch (code) {
    case MP_OK: return "no error";
    case MP_ERROR_NULL: return "a pointer is null";
    case MP_ERROR_WORKSPACE_SIZE: return "the workspace is too small";
    case MP_ERROR_WORKSPACE_ALIGNMENT: return "the workspace is not aligned to 64 bytes";
    case MP_ERROR_TASKS: return "fewer than one task, or several and no parallel_for";
    case MP_ERROR_PARALLEL: return "parallel_for, or a task in it, failed";
    case MP_ERROR_CPU: return "this CPU lacks an instruction that the library was compiled for";
    case MP_ERROR_INTERNAL: return "a kernel refused its arguments: a fault of the compiler";
    default: return "unknown error";
  }
}
"""


def _argument(arg: Arg, shape: int) -> str:
    kind = arg.dtype.rstrip("0123456789")
    bits = int(arg.dtype[len(kind) :])
    return f"{{{arg.offset}, {shape}, {SPACES[arg.space]}, {len(arg.shape)}, {CODES[kind]}, {bits}}}"


def _cpu_c(target: Target) -> list[str]:
    """mp_cpu_is_able."""
    if target.arch == "x86_64":
        wanted = [X86_FEATURES[f] for f in target.features if X86_FEATURES.get(f)]
        tests = [f'__builtin_cpu_supports("{f}")' for f in wanted]
        return [
            "int mp_cpu_is_able(void) {",
            "  __builtin_cpu_init();",
            "  return " + " &&\n         ".join(tests or ["1"]) + ";",
            "}",
        ]
    known = ARM_FEATURES.get("aarch64" if target.arch == "aarch64" else "arm", {})
    mask = sum(bit for name, bit in known.items() if name in target.features)
    return [
        "#include <sys/auxv.h>",
        "",
        f"int mp_cpu_is_able(void) {{ return (getauxval(AT_HWCAP) & {mask:#x}ul) == {mask:#x}ul; }}",
    ]


def weights_s(export: Export, file: str, arch: str) -> str:
    """Assembler source: the weights as they are, at 64 bytes."""
    mark = "%" if arch in ("arm", "armv7l") else "@"
    return (
        f"  .section .rodata\n  .balign {ALIGNMENT}\n  .globl {export.name}_weights\n{export.name}_weights:\n"
        f'  .incbin "{file}"\n  .byte 0\n  .section .note.GNU-stack,"",{mark}progbits\n'
    )


# -- the public part -------------------------------------------------------------------------------------------------
def header(export: Export) -> str:
    """NAME.h"""
    n, u = export.name, export.upper
    ports = []
    for kind, found in (("input", export.plan.inputs), ("output", export.plan.outputs)):
        for i, port in enumerate(found):
            dims = " × ".join(map(str, port.shape)) or "1"
            ports.append(f"#define {u}_{kind.upper()}_{i}_SIZE {prod(port.shape)} /* {_plain(port.name)}: {dims} */")
    return (
        _HEADER.replace("@name@", n)
        .replace("@NAME@", u)
        .replace("@ports@", "\n".join(ports))
        .replace("@inputs@", str(len(export.plan.inputs)))
        .replace("@outputs@", str(len(export.plan.outputs)))
        .replace("@base@", str(export.base_bytes))
        .replace("@scratch@", str(export.scratch_bytes))
        .replace("@stack@", str(export.stack))
        .replace("@target@", export.target.name)
        .replace("@source@", _plain(export.source))
        .replace("@version@", export.version)
    )


_HEADER = """/*
 * @name@: @source@, compiled by mpcompile @version@ for @target@.
 *
 * Inputs and outputs are float32 in the order and layout of the source model, without a batch axis. No function
 * allocates memory, starts threads or keeps state: runs with workspaces of their own may go on side by side. Buffers
 * on the stack take @stack@ bytes, at the most, of each thread.
 */
#ifndef @NAME@_H
#define @NAME@_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_INPUTS @inputs@
#define @NAME@_OUTPUTS @outputs@
/* Numbers in each. */
@ports@

/* Bytes of workspace that @name@_run needs (tasks = 1), or @name@_run_parallel. Its contents need not outlive a run. */
#define @NAME@_WORKSPACE_BYTES(tasks) \\
  ((size_t)@base@ + (size_t)@scratch@ * ((tasks) > 1 ? (size_t)(tasks) + 1 : 1))
#define @NAME@_WORKSPACE_ALIGNMENT 64

enum {
  @NAME@_OK = 0,
  @NAME@_ERROR_NULL = 1,                /* a pointer is null */
  @NAME@_ERROR_WORKSPACE_SIZE = 2,      /* the workspace is too small */
  @NAME@_ERROR_WORKSPACE_ALIGNMENT = 3, /* the workspace is not aligned to 64 bytes */
  @NAME@_ERROR_TASKS = 4,               /* fewer than one task, or several and no parallel_for */
  @NAME@_ERROR_PARALLEL = 5,            /* parallel_for, or a task in it, failed */
  @NAME@_ERROR_CPU = 6,                 /* this CPU lacks an instruction that the library was compiled for */
  @NAME@_ERROR_INTERNAL = 7             /* a kernel refused its arguments: a fault of the compiler */
};

/* One sample, on this thread. Returns 0 or one of the errors above; what the outputs hold after an error is undefined. */
int @name@_run(const float *const *inputs, float *const *outputs, void *workspace, size_t workspace_bytes);

/*
 * The same with threads of the application's: parallel_for must call task(state, i) once for each i in 0 .. tasks - 1,
 * on any threads, return when all have returned, and return 0 if they all returned 0. Results are the same.
 */
typedef int (*@name@_task)(void *state, int index);
typedef int (*@name@_parallel_for)(void *context, int tasks, @name@_task task, void *state);
int @name@_run_parallel(const float *const *inputs, float *const *outputs, void *workspace, size_t workspace_bytes,
                        int tasks, @name@_parallel_for parallel_for, void *context);

/* What an error code says, in English. */
const char *@name@_error(int code);

#ifdef __cplusplus
}
#endif

#endif
"""


def example(export: Export) -> str:
    """example.c: runs the network on files of raw float32, and times it."""
    return (
        _EXAMPLE.replace("@name@", export.name)
        .replace("@NAME@", export.upper)
        .replace(
            "@sizes@",
            ", ".join(
                f"{export.upper}_{kind}_{i}_SIZE"
                for kind, ports in (("INPUT", export.plan.inputs), ("OUTPUT", export.plan.outputs))
                for i in range(len(ports))
            ),
        )
    )


_EXAMPLE = """/*
 * example [-t THREADS] [-n RUNS] INPUT... OUTPUT...: one file of raw float32 for each input and output of @name@.
 * Prints the median time of RUNS runs. Compile with -DTHREADS and -pthread for -t.
 */
#define _POSIX_C_SOURCE 200112L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef THREADS
#include <pthread.h>
#endif

#include "@name@.h"

enum { PORTS = @NAME@_INPUTS + @NAME@_OUTPUTS };
static const size_t sizes[PORTS] = {@sizes@};

#ifdef THREADS
/* An application would hand in its own pool. Starting a thread for each task is the simplest thing that is right. */
typedef struct {
  @name@_task task;
  void *state;
  int index, code;
} job;

static void *work(void *opaque) {
  job *j = opaque;
  j->code = j->task(j->state, j->index);
  return 0;
}

static int parallel_for(void *context, int tasks, @name@_task task, void *state) {
  enum { MOST = 64 };
  pthread_t threads[MOST];
  job jobs[MOST];
  int i, started, code = 0;
  (void)context;
  if (tasks > MOST) return -1;
  for (i = 0; i < tasks; ++i) jobs[i] = (job){task, state, i, 0};
  for (started = 1; started < tasks; ++started)
    if (pthread_create(&threads[started], 0, work, &jobs[started])) break;
  work(&jobs[0]);
  for (i = started; i < tasks; ++i) work(&jobs[i]);
  for (i = 1; i < started; ++i) pthread_join(threads[i], 0);
  for (i = 0; i < tasks; ++i) code |= jobs[i].code;
  return code;
}
#endif

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static int transfer(const char *path, float *data, size_t count, int writing) {
  FILE *file = fopen(path, writing ? "wb" : "rb");
  int good = file && (writing ? fwrite(data, sizeof *data, count, file) : fread(data, sizeof *data, count, file)) == count;
  if (file && fclose(file)) good = 0;
  if (!good) fprintf(stderr, "cannot %s %lu float32 values: %s\\n", writing ? "write" : "read", (unsigned long)count, path);
  return good;
}

int main(int argc, char **argv) {
  const float *inputs[@NAME@_INPUTS];
  float *outputs[@NAME@_OUTPUTS];
  float *data[PORTS];
  int tasks = 1, runs = 1, code = 0, i;
  double *times;
  void *workspace = 0;
  while (argc > 2 && argv[1][0] == '-' && argv[1][1] && strchr("tn", argv[1][1])) {
    *(argv[1][1] == 't' ? &tasks : &runs) = atoi(argv[2]);
    argc -= 2, argv += 2;
  }
#ifndef THREADS
  if (tasks != 1) return fprintf(stderr, "this was compiled without -DTHREADS: one thread only\\n"), 2;
#endif
  if (argc != 1 + PORTS || tasks < 1 || runs < 1)
    return fprintf(stderr, "usage: example [-t THREADS] [-n RUNS] INPUT... OUTPUT... (%d and %d files)\\n", @NAME@_INPUTS,
                   @NAME@_OUTPUTS), 2;
  for (i = 0; i < PORTS; ++i) {
    if (!(data[i] = malloc(sizes[i] * sizeof(float)))) return fprintf(stderr, "out of memory\\n"), 1;
    if (i < @NAME@_INPUTS) inputs[i] = data[i];
    else outputs[i - @NAME@_INPUTS] = data[i];
    if (i < @NAME@_INPUTS && !transfer(argv[1 + i], data[i], sizes[i], 0)) return 1;
  }
  times = malloc(sizeof *times * (size_t)runs);
  if (!times || posix_memalign(&workspace, @NAME@_WORKSPACE_ALIGNMENT, @NAME@_WORKSPACE_BYTES(tasks)))
    return fprintf(stderr, "out of memory\\n"), 1;
  for (i = 0; i < runs && !code; ++i) {
    double start = seconds();
#ifdef THREADS
    code = @name@_run_parallel(inputs, outputs, workspace, @NAME@_WORKSPACE_BYTES(tasks), tasks, parallel_for, 0);
#else
    code = @name@_run(inputs, outputs, workspace, @NAME@_WORKSPACE_BYTES(tasks));
#endif
    times[i] = seconds() - start;
  }
  if (code) return fprintf(stderr, "@name@: %s\\n", @name@_error(code)), 1;
  qsort(times, (size_t)runs, sizeof *times, ascending);
  printf("%d runs, median %.3f ms\\n", runs, 1e3 * times[runs / 2]);
  for (i = @NAME@_INPUTS; i < PORTS; ++i)
    if (!transfer(argv[1 + i], data[i], sizes[i], 1)) return 1;
  for (i = 0; i < PORTS; ++i) free(data[i]);
  free(times);
  free(workspace);
  return 0;
}
"""


def cmake(export: Export) -> str:
    """CMakeLists.txt: the library as a target to link against, and the example."""
    return _CMAKE.replace("@name@", export.name)


_CMAKE = """# As a part of an application: add_subdirectory(THIS_FOLDER @name@), then
# target_link_libraries(APPLICATION PRIVATE mpcompile::@name@). On its own, this folder is the project of example.c.
cmake_minimum_required(VERSION 3.13)
project(@name@ LANGUAGES NONE)

add_library(mpcompile::@name@ STATIC IMPORTED GLOBAL)
set_target_properties(mpcompile::@name@ PROPERTIES
  IMPORTED_LOCATION "${CMAKE_CURRENT_SOURCE_DIR}/lib@name@.a"
  INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_SOURCE_DIR}"
  INTERFACE_LINK_LIBRARIES m)

if(CMAKE_CURRENT_SOURCE_DIR STREQUAL CMAKE_SOURCE_DIR)
  enable_language(C)
  set(THREADS_PREFER_PTHREAD_FLAG ON)
  find_package(Threads REQUIRED)
  add_executable(example example.c)
  target_compile_definitions(example PRIVATE THREADS)
  target_link_libraries(example PRIVATE mpcompile::@name@ Threads::Threads)
endif()
"""


def _plain(text: str) -> str:
    """Safe inside a C comment."""
    return re.sub(r"[^ -~]|\*/|/\*", "?", text)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
