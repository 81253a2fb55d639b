/* Runs one compiled kernel: `driver IN OUT LAYOUT...`, with LAYOUT = code:bits:d0xd1x... of each argument.
   Reads the bytes of all arguments from IN, calls the kernel, writes those of all arguments to OUT.
   A kernel needs nothing of TVM's runtime but what is defined here, so the program runs without a root file system. */
#include <tvm/ffi/c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { void *sync; int32_t tasks; } Group;
typedef int (*Task)(int id, Group *group, void *data);

/* Tasks run one after another: what they write must not depend on their order. */
static int launch(Task task, void *data, int tasks) {
  Group group = {0, tasks ? tasks : 2};
  for (int i = group.tasks - 1; i >= 0; --i)
    if (task(i, &group, data)) return -1;
  return 0;
}
static int barrier(int id, Group *group) { (void)id; (void)group; return -1; }
static void *allocate(int device, int id, uint64_t bytes, int code, int bits) {
  (void)device; (void)id; (void)code; (void)bits;
  void *p = 0;
  if (posix_memalign(&p, 64, bytes)) return 0;
  memset(p, 0x5a, bytes);
  return p;
}
static int release(int device, int id, void *p) { (void)device; (void)id; free(p); return 0; }

/* The kernel's object holds weak pointers of these names. */
void *__TVMBackendParallelLaunch = (void *)launch, *__TVMBackendParallelBarrier = (void *)barrier;
void *__TVMBackendAllocWorkspace = (void *)allocate, *__TVMBackendFreeWorkspace = (void *)release;
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t n) {
  fprintf(stderr, "%s: ", kind);
  for (int i = 0; i < n; ++i) if (parts[i]) fputs(parts[i], stderr);
  fputc('\n', stderr);
}
extern int __tvm_ffi_main(void *, const TVMFFIAny *, int32_t, TVMFFIAny *);

#define ALIGNMENT 64
#define GUARD 64                                  /* bytes around an argument that no kernel may touch */
#define FAIL(why) do { fprintf(stderr, "%s\n", why); return 2; } while (0)

int main(int argc, char **argv) {
  int n = argc - 3;
  if (n < 1) FAIL("driver IN OUT LAYOUT...");
  FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
  DLTensor *tensors = calloc(n, sizeof *tensors);
  TVMFFIAny *arguments = calloc(n, sizeof *arguments), result;
  size_t *bytes = calloc(n, sizeof *bytes);
  if (!in || !out || !tensors || !arguments || !bytes) FAIL("cannot open the files");
  for (int i = 0; i < n; ++i) {
    unsigned code, bits;
    int used = 0;
    if (sscanf(argv[i + 3], "%u:%u%n", &code, &bits, &used) != 2) FAIL("bad layout");
    int64_t *shape = calloc(16, sizeof *shape), *strides = shape + 8, count = 1;
    int rank = 0;
    for (char *p = argv[i + 3] + used; *p && rank < 8;) shape[rank++] = strtoll(p + 1, &p, 10);
    for (int d = rank - 1; d >= 0; --d) { strides[d] = count; count *= shape[d]; }
    char *memory = 0;
    bytes[i] = count * (bits / 8);
    if (posix_memalign((void **)&memory, ALIGNMENT, bytes[i] + 2 * GUARD)) FAIL("out of memory");
    memset(memory, 0xa5, bytes[i] + 2 * GUARD);
    if (fread(memory + GUARD, 1, bytes[i], in) != bytes[i]) FAIL("IN is too short");
    tensors[i] = (DLTensor){memory + GUARD, {kDLCPU, 0}, rank, {code, bits, 1}, shape, strides, 0};
    arguments[i].type_index = kTVMFFIDLTensorPtr;
    arguments[i].v_ptr = &tensors[i];
  }
  memset(&result, 0, sizeof result);
  if (__tvm_ffi_main(0, arguments, n, &result)) FAIL("the kernel failed");
  for (int i = 0; i < n; ++i) {
    const unsigned char *data = tensors[i].data;
    for (int g = 0; g < GUARD; ++g)
      if (data[-1 - g] != 0xa5 || data[bytes[i] + g] != 0xa5) FAIL("the kernel wrote outside of an argument");
    if (fwrite(data, 1, bytes[i], out) != bytes[i]) FAIL("cannot write OUT");
  }
  return fclose(out) ? 2 : 0;
}
