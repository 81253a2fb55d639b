
/* -- what NAME.h has ---------------------------------------------------------------------------------------------- */
int @name@_open(@name@_network **network, int device, int *driver_code) {
  if (!network) return MP_ERROR_NULL;
  *network = 0;
  Network *n = calloc(1, sizeof *n);
  if (!n) return MP_ERROR_MEMORY;
  int code = open_device(n, device);
  if (driver_code) *driver_code = n->code;
  if (code) destroy(n);
  else *network = n;
  return code;
}

int @name@_run(@name@_network *n, const float *const *inputs, float *const *outputs) {
  if (!n || !inputs || !outputs) return MP_ERROR_NULL;
  for (int i = 0; i < INPUTS; ++i)
    if (!inputs[i]) return MP_ERROR_NULL;
  for (int i = 0; i < OUTPUTS; ++i)
    if (!outputs[i]) return MP_ERROR_NULL;
  CU(CtxPush(n->context));
  int code = run(n, inputs, outputs);
  n->cu.CtxPop(&(void *){0});
  return code;
}

int @name@_launch(@name@_network *n, void *stream) {
  if (!n) return MP_ERROR_NULL;
  CU(CtxPush(n->context));
  int code = launch(n, stream);
  n->cu.CtxPop(&(void *){0});
  return code;
}

unsigned long long @name@_input(const @name@_network *n, int index) {
  return n && index >= 0 && index < INPUTS ? n->block[FIRST_INPUT + index] : 0;
}

unsigned long long @name@_output(const @name@_network *n, int index) {
  return n && index >= 0 && index < OUTPUTS ? n->block[FIRST_OUTPUT + index] : 0;
}

int @name@_driver_code(const @name@_network *n) { return n ? n->code : 0; }

void @name@_close(@name@_network *n) {
  if (n) destroy(n);
}

const char *@name@_error(int code) {
  switch (code) {
    case MP_OK: return "no error";
    case MP_ERROR_NULL: return "a pointer is null";
    case MP_ERROR_NO_DRIVER: return "there is no CUDA driver (libcuda.so.1), or it is too old";
    case MP_ERROR_NO_DEVICE: return "there is no such CUDA device";
    case MP_ERROR_ARCHITECTURE: return "no kernel was compiled for this device: @archs@";
    case MP_ERROR_MEMORY: return "there is too little memory";
    case MP_ERROR_CUDA: return "the CUDA driver refused, or the device was lost";
    default: return "unknown error";
  }
}
