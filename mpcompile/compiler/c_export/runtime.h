/* What a compiled network needs to run: its calls as a table, and where their tensors lie. Private to the library. */
#ifndef MPCOMPILE_RUNTIME_H
#define MPCOMPILE_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#include <tvm/ffi/c_api.h>

/* A kernel, as TVM's compiler emits it. */
typedef int (*mp_kernel)(void *self, const TVMFFIAny *args, int32_t count, TVMFFIAny *result);

enum mp_space { MP_WORKSPACE, MP_WEIGHTS, MP_INPUT, MP_OUTPUT };

/* A tensor argument: `offset` in bytes, or which input or output; its shape is shapes[shape] to shapes[shape + ndim - 1]. */
typedef struct {
  uint64_t offset;
  uint32_t shape;
  uint8_t space, ndim, code, bits;
} mp_argument;

/* kernel(arguments[first], ..., arguments[first + count - 1]) */
typedef struct {
  mp_kernel kernel;
  uint32_t first, count;
} mp_call;

/*
 * The workspace, all parts aligned to 64 bytes:
 *
 *   activations | copies of inputs and outputs that the caller did not align | scratch of the caller | of each task
 */
typedef struct {
  const mp_call *calls;
  uint32_t call_count;
  const mp_argument *arguments;
  const int64_t *shapes;
  const unsigned char *weights;
  uint64_t activations, ports, scratch;
  uint32_t input_count, output_count;
  const uint64_t *port_bytes; /* of the inputs, then of the outputs */
} mp_network;

enum mp_error {
  MP_OK,
  MP_ERROR_NULL,
  MP_ERROR_WORKSPACE_SIZE,
  MP_ERROR_WORKSPACE_ALIGNMENT,
  MP_ERROR_TASKS,
  MP_ERROR_PARALLEL,
  MP_ERROR_CPU,
  MP_ERROR_INTERNAL
};

typedef int (*mp_task)(void *state, int index);
typedef int (*mp_parallel_for)(void *context, int tasks, mp_task task, void *state);

uint64_t mp_workspace_bytes(const mp_network *network, int tasks);
int mp_run(const mp_network *network, const float *const *inputs, float *const *outputs, void *workspace,
           uint64_t workspace_bytes, int tasks, mp_parallel_for parallel_for, void *context);
int mp_cpu_is_able(void); /* generated: whether this CPU has all that the kernels use */

#endif
