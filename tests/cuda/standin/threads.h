// CUDA C without barriers on a CPU: one thread after another.
#pragma once
#include <cmath>
#define __global__
#define __device__
#define __launch_bounds__(...)
#define __restrict__ __restrict
struct dim3 { unsigned x, y, z; };
static dim3 threadIdx, blockIdx, blockDim, gridDim;

extern "C" __attribute__((visibility("default"))) int emu_launch(void (*thread)(void**), const unsigned* grid,
                                                                 const unsigned* block, unsigned, void** arguments) {
  gridDim = {grid[0], grid[1], grid[2]}, blockDim = {block[0], block[1], block[2]};
  for (unsigned b = 0; b < grid[0] * grid[1] * grid[2]; ++b)
    for (unsigned t = 0; t < block[0] * block[1] * block[2]; ++t) {
      blockIdx = {b % grid[0], b / grid[0] % grid[1], b / grid[0] / grid[1]};
      threadIdx = {t % block[0], t / block[0] % block[1], t / block[0] / block[1]};
      thread(arguments);
    }
  return 0;
}
