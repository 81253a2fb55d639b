// The threads of a block as fibers of one thread, in random order; blocks run one after another.
//
// A fiber gives way at a barrier, of its block or its warp, until all others have come there. A barrier that is missing, or
// that some never reach, shows: what one thread reads of another is then there or not, as chance has it.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

struct dim3 { unsigned x, y, z; };

extern "C" {
extern char __start_emulated_shared[] __attribute__((weak)), __stop_emulated_shared[] __attribute__((weak));
void emulate_switch(void** from, void* to);  // saves what a callee must keep, and changes stacks (x86-64)
}
asm(".text\n.local emulate_switch\nemulate_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");

namespace emulate {

constexpr size_t STACK = 256 << 10;
constexpr int WARP = 32, MOST = 1024;
constexpr int UNDEFINED = 0xA5;  // in shared memory, before anybody writes there

struct Barrier { int total, count; unsigned turn; };
struct Copy { void* to; const void* from; int bytes, group; };
struct Fiber { std::vector<Copy> copies; int group; void* stack_pointer; dim3 at; int lane, warp; bool done; char* stack; };
struct Warp { Barrier barrier; const void* slot[WARP]; };

static Fiber* fibers;
static Fiber* now;
static Warp warps[MOST / WARP];
static Barrier of_block;
static void* scheduler;
static dim3 block, grid, block_dim;
static void (*body)(void**);
static void** arguments;
static unsigned char* dynamic_shared;
static unsigned seed = 1;
static bool moved;

static void yield() { emulate_switch(&now->stack_pointer, scheduler); }

static void wait(Barrier& barrier) {
  unsigned turn = barrier.turn;
  moved = true;
  if (++barrier.count == barrier.total) barrier.count = 0, ++barrier.turn;
  else while (barrier.turn == turn) yield();
}

static void entry() {
  body(arguments);
  now->done = true, moved = true;
  while (true) yield();
}

static unsigned random() {
  seed ^= seed << 13, seed ^= seed >> 17;
  return seed ^= seed << 5;
}

// What every lane of the warp gives, until `release`.
static const void* const* exchange(const void* mine) {
  Warp& warp = warps[now->warp];
  warp.slot[now->lane] = mine;
  wait(warp.barrier);
  return warp.slot;
}
static void release() { wait(warps[now->warp].barrier); }

static void start(Fiber& fiber, int i) {
  fiber.done = false, fiber.lane = i % WARP, fiber.warp = i / WARP, fiber.group = 0, fiber.copies.clear();
  fiber.at = {i % block_dim.x, i / block_dim.x % block_dim.y, i / block_dim.x / block_dim.y};
  void** top = (void**)((uintptr_t)(fiber.stack + STACK) & ~uintptr_t(63)) - 1;
  *--top = (void*)entry;
  fiber.stack_pointer = top - 6;
}

// One block of n threads; 1 where some wait for ever. A warp goes as far as it can before the next has its turn.
static int run_block(int n) {
  static int order[MOST / WARP];
  int count = (n + WARP - 1) / WARP, left = n;
  for (int i = 0; i < n; ++i) start(fibers[i], i);
  of_block = {n, 0, 0};
  for (int w = 0; w < count; ++w) order[w] = w, warps[w].barrier = {n - w * WARP < WARP ? n - w * WARP : WARP, 0, 0};
  if (__start_emulated_shared) memset(__start_emulated_shared, UNDEFINED, __stop_emulated_shared - __start_emulated_shared);
  while (left) {
    for (int i = count - 1; i > 0; --i) {
      int j = random() % (i + 1), kept = order[i];
      order[i] = order[j], order[j] = kept;
    }
    bool any = false;
    for (int k = 0; k < count; ++k) {
      int first = order[k] * WARP, size = n - first < WARP ? n - first : WARP, begin = random() % size;
      do {
        moved = false;
        for (int i = 0; i < size; ++i) {
          now = &fibers[first + (begin + i) % size];
          if (!now->done) emulate_switch(&scheduler, now->stack_pointer), left -= now->done;
        }
        any |= moved;
      } while (moved);
    }
    if (left && !any) {
      fprintf(stderr, "emulate: %d of %d threads wait at a barrier that the others never reach\n", left, n);
      return 1;
    }
  }
  return 0;
}

}  // namespace emulate

// Runs f on each thread of the grid; 0, or why it did not: 1 as above, 2 a block of too many threads.
extern "C" __attribute__((used, visibility("default"))) int emu_launch(void (*f)(void**), const unsigned* grid,
                                                                       const unsigned* block, unsigned shared,
                                                                       void** arguments) {
  using namespace emulate;
  int n = block[0] * block[1] * block[2], status = 0;
  if (n < 1 || n > MOST) return 2;
  emulate::grid = {grid[0], grid[1], grid[2]}, block_dim = {block[0], block[1], block[2]};
  body = f, emulate::arguments = arguments;
  std::vector<Fiber> all(n);
  fibers = all.data();
  char* stacks = (char*)malloc(n * STACK);
  for (int i = 0; i < n; ++i) fibers[i].stack = stacks + i * STACK;
  dynamic_shared = (unsigned char*)aligned_alloc(128, (shared + 127) / 128 * 128 + 128);
  for (unsigned i = 0; i < grid[0] * grid[1] * grid[2] && !status; ++i) {
    emulate::block = {i % grid[0], i / grid[0] % grid[1], i / grid[0] / grid[1]};
    memset(dynamic_shared, UNDEFINED, shared);
    status = run_block(n);
  }
  free(stacks), free(dynamic_shared);
  return status;
}

#define threadIdx (emulate::now->at)
#define blockIdx (emulate::block)
#define blockDim (emulate::block_dim)
#define gridDim (emulate::grid)
static inline void __syncthreads() { emulate::wait(emulate::of_block); }
static inline void __syncwarp(unsigned = ~0u) { emulate::release(); }
