/*
 * @name@: @source@, compiled by mpcompile @version@ for @target@ (@archs@).
 *
 * Inputs and outputs are float32 in the order and layout of the source model, without a batch axis. A network that is
 * open has its weights and @workspace@ bytes of workspace on the device; one thread at a time may use it, and others may
 * use networks that they opened themselves. The compiler takes in @name@.bin from the folder that
 * it runs in, or from -D@NAME@_DATA='"PATH"'. Of CUDA, libcuda.so.1 is needed alone; it is looked for when a network is
 * opened (link with -ldl before glibc 2.34).
 */
#ifndef @NAME@_H
#define @NAME@_H

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_INPUTS @inputs@
#define @NAME@_OUTPUTS @outputs@
/* Numbers in each. */
@ports@

enum {
  @NAME@_OK = 0,
  @NAME@_ERROR_NULL = 1,         /* a pointer is null */
  @NAME@_ERROR_NO_DRIVER = 2,    /* there is no CUDA driver (libcuda.so.1), or it is too old */
  @NAME@_ERROR_NO_DEVICE = 3,    /* there is no such CUDA device */
  @NAME@_ERROR_ARCHITECTURE = 4, /* no kernel was compiled for this device */
  @NAME@_ERROR_MEMORY = 5,       /* there is too little memory */
  @NAME@_ERROR_CUDA = 6          /* the CUDA driver refused, or the device was lost: see @name@_driver_code */
};

typedef struct @name@_network @name@_network;

/* Opens it on a device (0: the first). `driver_code`, or null: gets the driver's own code where that refuses. */
int @name@_open(@name@_network **network, int device, int *driver_code);

/* One sample, from and to the host's memory. What the outputs hold after an error is undefined. */
int @name@_run(@name@_network *network, const float *const *inputs, float *const *outputs);

/*
 * For data that is on the device: its inputs and outputs there (CUdeviceptr), and a run of it in a stream (CUstream; null:
 * one of its own) of the device's primary context, behind what was started there before. It returns at once.
 */
unsigned long long @name@_input(const @name@_network *network, int index);
unsigned long long @name@_output(const @name@_network *network, int index);
int @name@_launch(@name@_network *network, void *stream);

/* What the driver said at the last error (CUresult). */
int @name@_driver_code(const @name@_network *network);

void @name@_close(@name@_network *network);

/* What an error code says, in English. */
const char *@name@_error(int code);

#ifdef __cplusplus
}
#endif

#endif
