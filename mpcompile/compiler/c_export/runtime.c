/*
 * Follows a network's table of calls. The state of a run is in the caller's workspace and, while it runs, in one
 * thread-local pointer, so runs with workspaces of their own may go on side by side.
 */
#include "runtime.h"

#include <string.h>

enum { ALIGNMENT = 64, MOST_ARGUMENTS = 64 };

typedef struct {
  const mp_network *network;
  unsigned char *scratch; /* of the caller, then of each task */
  int tasks;
  mp_parallel_for parallel_for;
  void *context;
} mp_run_state;

static _Thread_local const mp_run_state *current;
static _Thread_local unsigned char *scratch_top;
static _Thread_local int parallel_failed;

static uint64_t aligned(uint64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* -- what kernels call ------------------------------------------------------------------------------------------ */

/* Kernels free in the opposite order of their allocations: a stack. Its size was computed with the kernels. */
static void *alloc_workspace(int device_type, int device, uint64_t bytes, int code, int bits) {
  unsigned char *found = scratch_top;
  (void)device_type, (void)device, (void)code, (void)bits;
  scratch_top += aligned(bytes);
  return found;
}

static int free_workspace(int device_type, int device, void *memory) {
  (void)device_type, (void)device;
  scratch_top = memory;
  return 0;
}

typedef struct {
  void *sync_handle;
  int32_t count;
} parallel_group;

typedef int (*parallel_body)(int index, parallel_group *group, void *data);

typedef struct {
  const mp_run_state *run;
  parallel_body body;
  void *data;
} parallel_state;

static int parallel_task(void *opaque, int index) {
  const parallel_state *state = opaque;
  parallel_group group = {0, state->run->tasks};
  const mp_run_state *before = current;
  unsigned char *top = scratch_top;
  int code;
  if (index < 0 || index >= state->run->tasks) return -1;
  current = state->run;
  scratch_top = state->run->scratch + (uint64_t)(index + 1) * state->run->network->scratch;
  code = state->body(index, &group, state->data);
  current = before;
  scratch_top = top;
  return code;
}

static int parallel_launch(parallel_body body, void *data, int wanted) {
  const mp_run_state *run = current;
  parallel_group alone = {0, 1};
  parallel_state state = {run, body, data};
  int code;
  (void)wanted;
  if (run->tasks == 1) return body(0, &alone, data);
  code = run->parallel_for(run->context, run->tasks, parallel_task, &state);
  if (code) parallel_failed = 1;
  return code;
}

/* The kernels' objects hold weak pointers of these names. */
void *__TVMBackendAllocWorkspace = (void *)alloc_workspace;
void *__TVMBackendFreeWorkspace = (void *)free_workspace;
void *__TVMBackendParallelLaunch = (void *)parallel_launch;

/* A kernel's check of its arguments failed: mp_run returns MP_ERROR_INTERNAL. */
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  (void)kind, (void)parts, (void)count;
}

/* -- running ---------------------------------------------------------------------------------------------------- */

uint64_t mp_workspace_bytes(const mp_network *network, int tasks) {
  return network->activations + network->ports + network->scratch * (uint64_t)(tasks > 1 ? tasks + 1 : 1);
}

static int is_aligned(const void *memory) { return (uintptr_t)memory % ALIGNMENT == 0; }

static int call(const mp_network *network, const mp_call *step, unsigned char *const *bases,
                const unsigned char *const *ports) {
  DLTensor tensors[MOST_ARGUMENTS];
  TVMFFIAny arguments[MOST_ARGUMENTS];
  TVMFFIAny result;
  uint32_t i;
  if (step->count > MOST_ARGUMENTS) return -1;
  memset(tensors, 0, sizeof tensors[0] * step->count);
  memset(arguments, 0, sizeof arguments[0] * step->count);
  memset(&result, 0, sizeof result);
  for (i = 0; i < step->count; ++i) {
    const mp_argument *from = &network->arguments[step->first + i];
    DLTensor *to = &tensors[i];
    switch (from->space) {
      case MP_INPUT: to->data = (void *)ports[from->offset]; break;
      case MP_OUTPUT: to->data = (void *)ports[network->input_count + from->offset]; break;
      default: to->data = bases[from->space] + from->offset;
    }
    to->device.device_type = kDLCPU;
    to->ndim = from->ndim;
    to->dtype.code = from->code;
    to->dtype.bits = from->bits;
    to->dtype.lanes = 1;
    to->shape = (int64_t *)network->shapes + from->shape;
    to->strides = 0; /* compact, row-major */
    arguments[i].type_index = kTVMFFIDLTensorPtr;
    arguments[i].v_ptr = to;
  }
  return step->kernel(0, arguments, (int32_t)step->count, &result);
}

int mp_run(const mp_network *network, const float *const *inputs, float *const *outputs, void *workspace,
           uint64_t workspace_bytes, int tasks, mp_parallel_for parallel_for, void *context) {
  enum { MOST_PORTS = 64 };
  const unsigned char *ports[MOST_PORTS];
  unsigned char *bases[2];
  unsigned char *copies;
  uint32_t i, count = network->input_count + network->output_count;
  mp_run_state state;
  const mp_run_state *before = current;
  unsigned char *top = scratch_top;
  int code = MP_OK;

  if (count > MOST_PORTS) return MP_ERROR_INTERNAL;
  if (!inputs || !outputs || !workspace) return MP_ERROR_NULL;
  if (tasks < 1 || (tasks > 1 && !parallel_for)) return MP_ERROR_TASKS;
  if (!is_aligned(workspace)) return MP_ERROR_WORKSPACE_ALIGNMENT;
  if (workspace_bytes < mp_workspace_bytes(network, tasks)) return MP_ERROR_WORKSPACE_SIZE;
  if (!mp_cpu_is_able()) return MP_ERROR_CPU;

  bases[MP_WORKSPACE] = workspace;
  bases[MP_WEIGHTS] = (unsigned char *)network->weights;
  copies = (unsigned char *)workspace + network->activations;
  for (i = 0; i < count; ++i) {
    const int is_input = i < network->input_count;
    const void *given = is_input ? (const void *)inputs[i] : (const void *)outputs[i - network->input_count];
    if (!given) return MP_ERROR_NULL;
    ports[i] = is_aligned(given) ? given : copies;
    if (is_input && ports[i] != given) memcpy(copies, given, network->port_bytes[i]);
    copies += aligned(network->port_bytes[i]);
  }

  state.network = network;
  state.scratch = (unsigned char *)workspace + network->activations + network->ports;
  state.tasks = tasks;
  state.parallel_for = parallel_for;
  state.context = context;
  current = &state;
  scratch_top = state.scratch;
  parallel_failed = 0;
  for (i = 0; i < network->call_count && code == MP_OK; ++i)
    if (call(network, &network->calls[i], bases, ports)) code = parallel_failed ? MP_ERROR_PARALLEL : MP_ERROR_INTERNAL;
  current = before;
  scratch_top = top;

  for (i = 0; i < network->output_count && code == MP_OK; ++i)
    if (ports[network->input_count + i] != (const unsigned char *)outputs[i])
      memcpy(outputs[i], ports[network->input_count + i], network->port_bytes[network->input_count + i]);
  return code;
}
