// Modules and kernels. A "cubin" is a shared library of this CPU with, for a kernel NAME, the functions
//   emu_call_NAME(void** arguments)     one thread of it
//   emu_launch(call, grid, block, dynamic shared bytes, arguments)     all threads; not 0 where they cannot go on
// and the number emu_params_NAME of its arguments, all of them addresses.
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <set>
#include <sys/mman.h>
#include <unistd.h>

#include "state.h"

namespace {
using Thread = void (*)(void**);
struct Kernel {
  std::string name;
  Thread thread;
  int (*launch)(Thread, const unsigned*, const unsigned*, unsigned, void**);
  int arguments;
  unsigned shared = 48 << 10;
};
struct Module { int file; std::set<Kernel*> kernels; };
std::map<void*, Module> modules;

Kernel* known(void* handle) {
  for (auto& [_, module] : modules)
    if (module.kernels.count(static_cast<Kernel*>(handle))) return static_cast<Kernel*>(handle);
  return nullptr;
}

struct Extents { unsigned of[3]; };

int run(const Kernel& kernel, Extents grid, Extents block, unsigned shared, std::vector<uint64_t> values) {
  if (int code = kernel_code()) return code;
  std::vector<void*> pointers;
  for (auto& value : values) {
    if (!is_inside(value, 1))
      return say(ILLEGAL_ADDRESS, "%s is given an address outside of any block", kernel.name.c_str());
    pointers.push_back(&value);
  }
  if (kernel.launch(kernel.thread, grid.of, block.of, shared, pointers.data()))
    return say(LAUNCH_FAILED, "%s does not end", kernel.name.c_str());
  return check_borders();
}
}

API cuModuleLoadData(void** module, const void* image) {
  BEGIN(CONTEXT);
  auto* head = static_cast<const Elf64_Ehdr*>(image);
  if (memcmp(head->e_ident, ELFMAG, SELFMAG) || head->e_machine != EM_X86_64)
    return say(INVALID_IMAGE, "a module is no library of this CPU");
  size_t size = head->e_shoff + size_t(head->e_shnum) * head->e_shentsize;
  int file = memfd_create("module", 0);
  for (size_t at = 0; at < size;) {
    ssize_t done = write(file, static_cast<const char*>(image) + at, size - at);
    if (done <= 0) return OUT_OF_MEMORY;
    at += done;
  }
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!*module) return close(file), say(INVALID_IMAGE, "%s", dlerror());
  modules[*module].file = file;  // open: the system's loader takes two libraries of one name for the same
  return OK;
}

API cuModuleUnload(void* module) {
  BEGIN(CONTEXT);
  if (!modules.count(module)) return INVALID_HANDLE;
  if (int code = run_all()) return code;
  for (Kernel* kernel : modules[module].kernels) delete kernel;
  dlclose(module);
  close(modules[module].file);
  modules.erase(module);
  return OK;
}

API cuModuleGetFunction(void** kernel, void* module, const char* name) {
  BEGIN(CONTEXT);
  if (!modules.count(module)) return INVALID_HANDLE;
  auto symbol = [&](const std::string& prefix) { return dlsym(module, (prefix + name).c_str()); };
  void *thread = symbol("emu_call_"), *launch = dlsym(module, "emu_launch"), *arguments = symbol("emu_params_");
  if (!thread || !launch || !arguments) return NOT_FOUND;
  auto* made = new Kernel{name, reinterpret_cast<Thread>(thread), reinterpret_cast<decltype(Kernel::launch)>(launch),
                          *static_cast<int*>(arguments)};
  modules[module].kernels.insert(made);
  *kernel = made;
  return OK;
}

API cuFuncSetAttribute(void* kernel, int attribute, int value) {
  BEGIN(CONTEXT);
  auto* found = known(kernel);
  if (!found) return INVALID_HANDLE;
  if (attribute != 8 || value < 0 || value > 166912) return INVALID_VALUE;
  found->shared = value > 48 << 10 ? value : 48 << 10;
  return OK;
}

API cuLaunchKernel(void* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** arguments, void** extra) {
  BEGIN(CONTEXT);
  auto* found = known(kernel);
  if (!found) return INVALID_HANDLE;
  size_t threads = size_t(bx) * by * bz;
  if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || !threads || threads > 1024 || bz > 64)
    return say(INVALID_VALUE, "%s: no device has such a grid or block", found->name.c_str());
  if (shared > found->shared) return say(INVALID_VALUE, "%s may not have %u bytes", found->name.c_str(), shared);
  if (extra || (found->arguments && !arguments)) return INVALID_VALUE;
  std::vector<uint64_t> values;  // as a device has them: what they are now
  for (int i = 0; i < found->arguments; ++i) values.push_back(*static_cast<uint64_t*>(arguments[i]));
  return static_cast<Stream*>(stream)->add([=, copy = *found] {
    return run(copy, {{gx, gy, gz}}, {{bx, by, bz}}, shared, values);
  });
}
