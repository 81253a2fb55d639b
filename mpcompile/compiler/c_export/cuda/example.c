/*
 * example [-n RUNS] INPUT... OUTPUT...: one file of raw float32 for each input and output of @name@.
 * Prints the median time of RUNS runs, copies to the device and back included.
 */
#define _POSIX_C_SOURCE 200112L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "@name@.h"

enum { PORTS = @NAME@_INPUTS + @NAME@_OUTPUTS };
static const size_t sizes[PORTS] = {@sizes@};

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
  if (!good) fprintf(stderr, "cannot %s %lu float32 values: %s\n", writing ? "write" : "read", (unsigned long)count, path);
  return good;
}

int main(int argc, char **argv) {
  const float *inputs[@NAME@_INPUTS];
  float *outputs[@NAME@_OUTPUTS];
  float *data[PORTS];
  int runs = 1, code, driver_code = 0, i;
  double *times;
  @name@_network *network;
  if (argc > 2 && !strcmp(argv[1], "-n")) runs = atoi(argv[2]), argc -= 2, argv += 2;
  if (argc != 1 + PORTS || runs < 1)
    return fprintf(stderr, "usage: example [-n RUNS] INPUT... OUTPUT... (%d and %d files)\n", @NAME@_INPUTS, @NAME@_OUTPUTS), 2;
  for (i = 0; i < PORTS; ++i) {
    if (!(data[i] = malloc(sizes[i] * sizeof(float)))) return fprintf(stderr, "out of memory\n"), 1;
    if (i < @NAME@_INPUTS) inputs[i] = data[i];
    else outputs[i - @NAME@_INPUTS] = data[i];
    if (i < @NAME@_INPUTS && !transfer(argv[1 + i], data[i], sizes[i], 0)) return 1;
  }
  if (!(times = malloc(sizeof *times * (size_t)runs))) return fprintf(stderr, "out of memory\n"), 1;
  code = @name@_open(&network, 0, &driver_code);
  for (i = 0; i < runs && !code; ++i) {
    double start = seconds();
    code = @name@_run(network, inputs, outputs);
    times[i] = seconds() - start;
    if (code) driver_code = @name@_driver_code(network);
  }
  if (code) return fprintf(stderr, "@name@: %s (CUDA's code %d)\n", @name@_error(code), driver_code), 1;
  @name@_close(network);
  for (i = 0; i < @NAME@_OUTPUTS; ++i)
    if (!transfer(argv[1 + @NAME@_INPUTS + i], outputs[i], sizes[@NAME@_INPUTS + i], 1)) return 1;
  qsort(times, (size_t)runs, sizeof *times, ascending);
  printf("%.3f us\n", 1e6 * times[runs / 2]);
  return 0;
}
