/* -- running it --------------------------------------------------------------------------------------------------- */
Network {
  mp_driver cu;
  int device;
  void *context, *module, *stream, *graph;
  mp_address block[BLOCKS];
  int code; /* the driver's, of the last error */
};

/* Compute capabilities of Jetsons and DRIVE boards: cubins of others do not run there, nor theirs elsewhere. */
static int is_tegra(int major, int minor) {
  static const int known[] = {53, 62, 72, 87, 101, 110};
  for (size_t i = 0; i < sizeof known / sizeof *known; ++i)
    if (known[i] == 10 * major + minor) return 1;
  return 0;
}

/* The cubin nearest to a device; 0 where none runs there. */
static const mp_cubin *cubin_for(int major, int minor) {
  const mp_cubin *best = 0;
  for (size_t i = 0; i < sizeof cubins / sizeof *cubins; ++i) {
    const mp_cubin *c = &cubins[i];
    int same = c->major == major && c->minor == minor;
    int older = !c->alone && c->major == major && c->minor < minor && !is_tegra(c->major, c->minor) && !is_tegra(major, minor);
    if ((same || older) && (!best || c->minor > best->minor)) best = c;
  }
  return best;
}

#define CU(call) \
  do { \
    if ((n->code = n->cu.call)) return n->code == CUDA_OUT_OF_MEMORY ? MP_ERROR_MEMORY : MP_ERROR_CUDA; \
  } while (0)

/* Starts every kernel in the stream, in order. */
static int start(Network *n, void **kernels) {
  for (size_t i = 0; i < sizeof launches / sizeof *launches; ++i) {
    const mp_launch *l = &launches[i];
    mp_address values[MOST_ARGUMENTS];
    void *pointers[MOST_ARGUMENTS];
    for (int a = 0; a < l->count; ++a) {
      values[a] = n->block[arguments[l->first + a].block] + arguments[l->first + a].offset;
      pointers[a] = &values[a];
    }
    CU(LaunchKernel(kernels[l->kernel], l->grid[0], l->grid[1], l->grid[2], l->threads[0], l->threads[1], l->threads[2],
                    l->shared, n->stream, pointers, 0));
  }
  return MP_OK;
}

static int capture(Network *n) {
  void *kernels[KERNELS], *graph = 0;
  for (int k = 0; k < KERNELS; ++k) {
    CU(ModuleGetFunction(&kernels[k], n->module, kernel_names[k]));
    CU(FuncSetAttribute(kernels[k], MAX_DYNAMIC_SHARED, kernel_shared[k]));
  }
  CU(StreamBeginCapture(n->stream, RELAXED));
  int code = start(n, kernels), driver_code = n->code;
  int ended = n->cu.StreamEndCapture(n->stream, &graph);
  if (!code && (driver_code = ended)) code = MP_ERROR_CUDA;
  if (!code && (driver_code = n->cu.GraphInstantiate(&n->graph, graph, 0, 0, 0)))
    code = driver_code == CUDA_OUT_OF_MEMORY ? MP_ERROR_MEMORY : MP_ERROR_CUDA;
  if (graph) n->cu.GraphDestroy(graph);
  n->code = driver_code;
  return code;
}

/* With the context current. */
static int make(Network *n) {
  int major, minor;
  CU(DeviceGetAttribute(&major, ATTRIBUTE_MAJOR, n->device));
  CU(DeviceGetAttribute(&minor, ATTRIBUTE_MINOR, n->device));
  const mp_cubin *cubin = cubin_for(major, minor);
  if (!cubin) return MP_ERROR_ARCHITECTURE;
  CU(ModuleLoadData(&n->module, mp_data + cubin->offset));
  CU(StreamCreate(&n->stream, NON_BLOCKING));
  for (int b = 0; b < BLOCKS; ++b)
    if (block_bytes[b]) CU(MemAlloc(&n->block[b], block_bytes[b]));
  if (block_bytes[WORKSPACE]) CU(MemsetD8(n->block[WORKSPACE], 0, block_bytes[WORKSPACE], n->stream));
  if (block_bytes[WEIGHTS]) CU(MemcpyHtoD(n->block[WEIGHTS], mp_data, block_bytes[WEIGHTS], n->stream));
  CU(StreamSynchronize(n->stream));
  return capture(n);
}

static int run(Network *n, const float *const *inputs, float *const *outputs) {
  for (int i = 0; i < INPUTS; ++i)
    CU(MemcpyHtoD(n->block[FIRST_INPUT + i], inputs[i], block_bytes[FIRST_INPUT + i], n->stream));
  CU(GraphLaunch(n->graph, n->stream));
  for (int i = 0; i < OUTPUTS; ++i)
    CU(MemcpyDtoH(outputs[i], n->block[FIRST_OUTPUT + i], block_bytes[FIRST_OUTPUT + i], n->stream));
  CU(StreamSynchronize(n->stream));
  return MP_OK;
}

static int launch(Network *n, void *stream) {
  CU(GraphLaunch(n->graph, stream ? stream : n->stream));
  return MP_OK;
}

static void destroy(Network *n) {
  if (n->context) {
    n->cu.CtxPush(n->context);
    if (n->graph) n->cu.GraphExecDestroy(n->graph);
    if (n->stream) n->cu.StreamDestroy(n->stream);
    if (n->module) n->cu.ModuleUnload(n->module);
    for (int b = 0; b < BLOCKS; ++b)
      if (n->block[b]) n->cu.MemFree(n->block[b]);
    n->cu.CtxPop(&(void *){0});
    n->cu.PrimaryCtxRelease(n->device);
  }
  free(n);
}

static int open_device(Network *n, int number) {
  if (!mp_driver_open(&n->cu)) return MP_ERROR_NO_DRIVER;
  n->code = n->cu.Init(0);
  if (!n->code) n->code = n->cu.DeviceGet(&n->device, number);
  if (n->code == CUDA_NO_DEVICE || n->code == CUDA_INVALID_DEVICE) return MP_ERROR_NO_DEVICE;
  if (n->code) return MP_ERROR_CUDA;
  CU(PrimaryCtxRetain(&n->context, n->device));
  CU(CtxPush(n->context));
  int code = make(n);
  n->cu.CtxPop(&(void *){0});
  return code;
}
