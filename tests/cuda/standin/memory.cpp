// Memory of the device: blocks of the host's, with a border on both sides that nobody may write.
#include <cstdlib>
#include <cstring>

#include "state.h"

namespace {
constexpr size_t BORDER = 256;
constexpr unsigned char FRESH = 0xA5, EDGE = 0x5A;
std::map<uint64_t, size_t> blocks;  // address → bytes
size_t used = 0;

bool is_edge(const unsigned char* from, size_t n) {
  for (size_t i = 0; i < n; ++i)
    if (from[i] != EDGE) return false;
  return true;
}
}

bool is_inside(uint64_t address, size_t n) {
  auto after = blocks.upper_bound(address);
  if (after == blocks.begin()) return false;
  auto block = std::prev(after);
  return address - block->first < block->second && n <= block->second - (address - block->first);
}

int check_borders() {
  for (auto [address, n] : blocks) {
    auto* data = reinterpret_cast<unsigned char*>(address);
    if (!is_edge(data - BORDER, BORDER) || !is_edge(data + n, BORDER))
      return say(ILLEGAL_ADDRESS, "a kernel wrote beside a block of %zu bytes", n);
  }
  return OK;
}

API cuMemAlloc_v2(uint64_t* address, size_t n) {
  BEGIN(CONTEXT);
  if (!n) return INVALID_VALUE;
  if (n > setting("STANDIN_MEMORY", 1 << 30) - used) return OUT_OF_MEMORY;
  void* raw = nullptr;
  if (posix_memalign(&raw, 256, n + 2 * BORDER)) return OUT_OF_MEMORY;
  memset(raw, EDGE, n + 2 * BORDER);
  auto* data = static_cast<unsigned char*>(raw) + BORDER;
  memset(data, FRESH, n);
  *address = reinterpret_cast<uint64_t>(data);
  blocks[*address] = n;
  used += n;
  return OK;
}

API cuMemFree_v2(uint64_t address) {
  BEGIN(CONTEXT);
  auto block = blocks.find(address);
  if (block == blocks.end()) return say(INVALID_VALUE, "%#lx is freed, and is no block", static_cast<long>(address));
  if (int code = run_all()) return code;
  used -= block->second;
  memset(reinterpret_cast<void*>(address), EDGE, block->second);
  free(reinterpret_cast<unsigned char*>(address) - BORDER);
  blocks.erase(block);
  return OK;
}

API cuMemGetInfo_v2(size_t* left, size_t* total) {
  BEGIN(CONTEXT);
  *total = setting("STANDIN_MEMORY", 1 << 30);
  *left = *total - used;
  return OK;
}

// What is copied is looked at when its turn comes: a device may read the host's pages as late as that.
API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t n, void* stream) {
  BEGIN(CONTEXT);
  if (n && !is_inside(to, n)) return say(INVALID_VALUE, "a copy of %zu bytes to outside of any block", n);
  return static_cast<Stream*>(stream)->add([=] { return memcpy(reinterpret_cast<void*>(to), from, n), OK; });
}

API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t n, void* stream) {
  BEGIN(CONTEXT);
  if (n && !is_inside(from, n)) return say(INVALID_VALUE, "a copy of %zu bytes from outside of any block", n);
  return static_cast<Stream*>(stream)->add([=] { return memcpy(to, reinterpret_cast<void*>(from), n), OK; });
}

API cuMemsetD8Async(uint64_t to, unsigned char value, size_t n, void* stream) {
  BEGIN(CONTEXT);
  if (n && !is_inside(to, n)) return say(INVALID_VALUE, "%zu bytes are set outside of any block", n);
  return static_cast<Stream*>(stream)->add([=] { return memset(reinterpret_cast<void*>(to), value, n), OK; });
}

// For tests: bytes that are allocated.
extern "C" __attribute__((visibility("default"))) long standin_bytes() { return used; }
