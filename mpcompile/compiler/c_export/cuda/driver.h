/* The driver API, found in libcuda.so.1 when the network is opened: a program that has it starts without a GPU, too. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t mp_address;
enum { CUDA_OUT_OF_MEMORY = 2, CUDA_NO_DEVICE = 100, CUDA_INVALID_DEVICE = 101 };
enum { ATTRIBUTE_MAJOR = 75, ATTRIBUTE_MINOR = 76, MAX_DYNAMIC_SHARED = 8, NON_BLOCKING = 1, RELAXED = 2 };

/* name, name in the library, arguments: as cuda.h has them, in the forms that every driver since CUDA 10.2 keeps. */
#define MP_DRIVER(X) \
  X(Init, "cuInit", (unsigned)) \
  X(DeviceGet, "cuDeviceGet", (int *, int)) \
  X(DeviceGetAttribute, "cuDeviceGetAttribute", (int *, int, int)) \
  X(PrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (void **, int)) \
  X(PrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (int)) \
  X(CtxPush, "cuCtxPushCurrent_v2", (void *)) \
  X(CtxPop, "cuCtxPopCurrent_v2", (void **)) \
  X(ModuleLoadData, "cuModuleLoadData", (void **, const void *)) \
  X(ModuleUnload, "cuModuleUnload", (void *)) \
  X(ModuleGetFunction, "cuModuleGetFunction", (void **, void *, const char *)) \
  X(FuncSetAttribute, "cuFuncSetAttribute", (void *, int, int)) \
  X(LaunchKernel, "cuLaunchKernel", (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, \
                                     void *, void **, void **)) \
  X(MemAlloc, "cuMemAlloc_v2", (mp_address *, size_t)) \
  X(MemFree, "cuMemFree_v2", (mp_address)) \
  X(MemsetD8, "cuMemsetD8Async", (mp_address, unsigned char, size_t, void *)) \
  X(MemcpyHtoD, "cuMemcpyHtoDAsync_v2", (mp_address, const void *, size_t, void *)) \
  X(MemcpyDtoH, "cuMemcpyDtoHAsync_v2", (void *, mp_address, size_t, void *)) \
  X(StreamCreate, "cuStreamCreate", (void **, unsigned)) \
  X(StreamDestroy, "cuStreamDestroy_v2", (void *)) \
  X(StreamSynchronize, "cuStreamSynchronize", (void *)) \
  X(StreamBeginCapture, "cuStreamBeginCapture_v2", (void *, int)) \
  X(StreamEndCapture, "cuStreamEndCapture", (void *, void **)) \
  X(GraphInstantiate, "cuGraphInstantiate", (void **, void *, void **, char *, size_t)) \
  X(GraphLaunch, "cuGraphLaunch", (void *, void *)) \
  X(GraphDestroy, "cuGraphDestroy", (void *)) \
  X(GraphExecDestroy, "cuGraphExecDestroy", (void *))

typedef struct {
  void *library;
#define X(name, symbol, types) int(*name) types;
  MP_DRIVER(X)
#undef X
} mp_driver;

/* Whether all of it is there. POSIX has pointers to functions and to data of one form. */
static int mp_driver_open(mp_driver *driver) {
  driver->library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!driver->library) return 0;
#define X(name, symbol, types) \
  *(void **)&driver->name = dlsym(driver->library, symbol); \
  if (!driver->name) return 0;
  MP_DRIVER(X)
#undef X
  return 1;
}
