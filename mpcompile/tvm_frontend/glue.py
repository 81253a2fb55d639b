"""C between a region's library and the TVM that calls it: arguments in, sample by sample, and TVM's own threads."""

from __future__ import annotations

from collections.abc import Sequence

INTERFACES = {"tvm_ffi": "__tvm_ffi_", "packed": ""}
"""How TVM calls a compiled function, and what its symbol's name begins with: tvm_ffi since 0.22, packed functions
before."""


def glue(library: str, symbol: str, sizes: Sequence[int], inputs: int, batch: int | None, interface: str) -> str:
    """The C source of the function `symbol`, which TVM calls by that interface with inputs, then outputs: float32, compact,
    batch in front. `library`: the region's, by export_c; `sizes`: numbers of a sample in each input and output, of which
    the first `inputs` are inputs; `batch`: how many samples, None where only a call says so."""
    values = {
        "lib": library,
        "LIB": library.upper(),
        "symbol": INTERFACES[interface] + symbol,
        "ports": str(len(sizes)),
        "ins": str(inputs),
        "outs": str(len(sizes) - inputs),
        "batch": str(batch or 0),
        "sizes": ", ".join(map(str, sizes)),
    }
    text = _COMMON + (_FFI if interface == "tvm_ffi" else _PACKED)
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


_COMMON = """/* Written by mpcompile: @symbol@ runs a region of a TVM module. */
#include <stddef.h>
#include <stdint.h>
#include <dlpack/dlpack.h>
#include "@lib@.h"

/* Of TVM's runtime: c_backend_api.h says the same in all its versions since 0.8. */
typedef struct { void *sync_handle; int32_t num_task; } mp_group;
extern int TVMBackendParallelLaunch(int (*lambda)(int task, mp_group *group, void *data), void *data, int tasks);
extern void *TVMBackendAllocWorkspace(int device_type, int device_id, uint64_t bytes, int type_code, int type_bits);
extern int TVMBackendFreeWorkspace(int device_type, int device_id, void *pointer);

static const int64_t sizes[@ports@] = {@sizes@};

typedef struct { @lib@_task task; void *state; int tasks; } mp_work;

static int one(int id, mp_group *group, void *data) {
  const mp_work *work = data;
  int code = 0, i;
  for (i = id; i < work->tasks && !code; i += group->num_task) code = work->task(work->state, i);
  return code;
}

static int together(void *context, int tasks, @lib@_task task, void *state) {
  mp_work work;
  work.task = task;
  work.state = state;
  work.tasks = tasks;
  (void)context;
  return TVMBackendParallelLaunch(one, &work, 0);
}

/* How many threads TVM's pool has: what it says to a task. */
static int count(int id, mp_group *group, void *data) {
  if (!id) *(int *)data = group->num_task;
  return 0;
}

enum { BATCH = @batch@ }; /* 0: any */

/* TVM's AOT executor hands over pointers dressed as scalars: nothing but the address is known of such a tensor. */
static int only_an_address(const DLTensor *t) { return t->ndim == 0 && t->dtype.code == kDLOpaqueHandle && BATCH; }

static int64_t batch_of(const DLTensor *t) { return only_an_address(t) ? BATCH : t->ndim ? t->shape[0] : 0; }

static int bad_tensor(const DLTensor *t, int64_t size, int64_t batch) {
  int64_t numbers = 1, stride = 1;
  int i;
  if (only_an_address(t)) return batch != BATCH;
  if (BATCH && batch != BATCH) return 1;
  for (i = 1; i < t->ndim; ++i) numbers *= t->shape[i];
  if (t->ndim < 1 || t->shape[0] != batch || numbers != size) return 1;
  if (t->device.device_type != kDLCPU || t->dtype.code != kDLFloat || t->dtype.bits != 32 || t->dtype.lanes != 1) return 1;
  for (i = t->ndim - 1; i >= 0 && t->strides; --i) {
    if (t->shape[i] != 1 && t->strides[i] != stride) return 1;
    stride *= t->shape[i];
  }
  return 0;
}

/* All samples, one after another. 0, or the reason in *why. */
static int run_all(DLTensor *const *tensors, const char **why) {
  const float *inputs[@ins@];
  float *outputs[@outs@];
  int tasks = 1, code = 0, i;
  int64_t sample, batch = batch_of(tensors[0]);
  uint64_t bytes;
  char *space;
  for (i = 0; i < @ports@; ++i) {
    if (bad_tensor(tensors[i], sizes[i], batch)) {
      *why = "a tensor of another shape or type than was compiled for, or not compact, or not on the CPU";
      return -1;
    }
  }
  if (TVMBackendParallelLaunch(count, &tasks, 0) || tasks < 1) tasks = 1;
  bytes = @LIB@_WORKSPACE_BYTES(tasks);
  space = TVMBackendAllocWorkspace(kDLCPU, 0, bytes + @LIB@_WORKSPACE_ALIGNMENT, kDLUInt, 8);
  if (!space) {
    *why = "there is no memory for its workspace";
    return -1;
  }
  for (sample = 0; sample < batch && !code; ++sample) {
    uintptr_t aligned = ((uintptr_t)space + @LIB@_WORKSPACE_ALIGNMENT - 1) / @LIB@_WORKSPACE_ALIGNMENT;
    for (i = 0; i < @ins@; ++i)
      inputs[i] = (const float *)((const char *)tensors[i]->data + tensors[i]->byte_offset) + sample * sizes[i];
    for (i = 0; i < @outs@; ++i)
      outputs[i] = (float *)((char *)tensors[@ins@ + i]->data + tensors[@ins@ + i]->byte_offset) +
                   sample * sizes[@ins@ + i];
    code = @lib@_run_parallel(inputs, outputs, (void *)(aligned * @LIB@_WORKSPACE_ALIGNMENT), bytes, tasks, together, 0);
  }
  TVMBackendFreeWorkspace(kDLCPU, 0, space);
  if (code) *why = @lib@_error(code);
  return code;
}
"""

_FFI = """
#include <tvm/ffi/c_api.h>

int @symbol@(void *self, const TVMFFIAny *args, int32_t n, TVMFFIAny *result) {
  DLTensor *tensors[@ports@];
  const char *why = "it was called with another number of tensors than was compiled for";
  int code = n != @ports@, i;
  (void)self;
  for (i = 0; i < @ports@ && !code; ++i) {
    if (args[i].type_index == kTVMFFITensor) tensors[i] = (DLTensor *)((char *)args[i].v_obj + sizeof(TVMFFIObject));
    else if (args[i].type_index == kTVMFFIDLTensorPtr) tensors[i] = args[i].v_ptr;
    else code = 1, why = "it was called with something that is no tensor";
  }
  if (!code) code = run_all(tensors, &why);
  if (code) {
    TVMFFIErrorSetRaisedFromCStr("RuntimeError", why);
    return -1;
  }
  result->type_index = kTVMFFINone;
  result->v_int64 = 0;
  return 0;
}
"""

_PACKED = """
/* c_runtime_api.h of TVM up to 0.21. */
typedef union { int64_t v_int64; double v_float64; void *v_handle; const char *v_str; } mp_value;
enum { MP_DLTENSOR = 7, MP_NDARRAY = 13 };
extern void TVMAPISetLastError(const char *message);

int32_t @symbol@(mp_value *args, int *codes, int n, mp_value *result, int *result_code, void *resource) {
  DLTensor *tensors[@ports@];
  const char *why = "it was called with another number of tensors than was compiled for";
  int code = n != @ports@, i;
  (void)result, (void)result_code, (void)resource;
  for (i = 0; i < @ports@ && !code; ++i) {
    tensors[i] = args[i].v_handle;
    if (codes[i] != MP_DLTENSOR && codes[i] != MP_NDARRAY) code = 1, why = "it was called with something that is no tensor";
  }
  if (!code) code = run_all(tensors, &why);
  if (code) {
    TVMAPISetLastError(why);
    return -1;
  }
  return 0;
}
"""
