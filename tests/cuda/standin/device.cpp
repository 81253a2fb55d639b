// Start, devices, the context, errors.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

#include "state.h"

namespace {
std::recursive_mutex mutex;
std::map<std::string, long> calls;
pid_t started = 0;     // the process that called cuInit: no other can use it
int lost = 0;          // the error that ended the device for this process
char context;          // its address is the primary context's handle
int retained = 0;      // how often it was, less how often it was released
thread_local std::vector<void*> current;  // contexts of this thread: the last holds

bool ends_it(int code) { return code == 46 || code == 214 || (code >= 700 && code <= 719 && code != 701) || code == 999; }

int asked_for(const char* name, long nth) {  // by STANDIN_FAIL
  const char* text = getenv("STANDIN_FAIL");
  char what[64];
  int code = 0;
  long from = 1;
  if (!text || sscanf(text, "%63[^:]:%d:%ld", what, &code, &from) < 2 || strcmp(what, name) || nth < from) return OK;
  if (ends_it(code)) lost = code;
  return code;
}
}

long setting(const char* name, long otherwise) {
  const char* text = getenv(name);
  return text ? atol(text) : otherwise;
}

int say(int code, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("stand-in: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  if (ends_it(code)) lost = code;
  return code;
}

int kernel_code() { return asked_for("kernel", ++calls["kernel"]); }

Call::Call(const char* name, Needs needs) : lock(mutex), code(OK) {
  std::string plain = name;
  if (plain.size() > 3 && plain.substr(plain.size() - 3) == "_v2") plain.resize(plain.size() - 3);
  long nth = ++calls[plain];
  if (needs >= INIT && started != getpid()) code = NOT_INITIALIZED;
  else if (needs >= INIT && lost) code = lost;
  else if (needs == CONTEXT && (current.empty() || current.back() != &context || !retained)) code = say(INVALID_CONTEXT, "%s: this thread has no context", name);
  else code = asked_for(plain.c_str(), nth);
}

API cuInit(unsigned flags) {
  BEGIN(NOTHING);
  if (flags) return INVALID_VALUE;
  if (started && started != getpid()) return NOT_INITIALIZED;
  if (setting("STANDIN_DEVICES", 1) < 1) return NO_DEVICE;
  started = getpid();
  return OK;
}

API cuDriverGetVersion(int* version) {
  BEGIN(NOTHING);
  *version = 12040;
  return OK;
}

API cuDeviceGetCount(int* count) {
  BEGIN(INIT);
  *count = setting("STANDIN_DEVICES", 1);
  return OK;
}

API cuDeviceGet(int* device, int number) {
  BEGIN(INIT);
  if (number < 0 || number >= setting("STANDIN_DEVICES", 1)) return INVALID_DEVICE;
  *device = number;
  return OK;
}

API cuDeviceGetName(char* name, int size, int device) {
  BEGIN(INIT);
  snprintf(name, size, "Stand-in %d", device);
  return OK;
}

API cuDeviceGetPCIBusId(char* name, int size, int device) {
  BEGIN(INIT);
  snprintf(name, size, "0000:%02X:00.0", device + 1);
  return OK;
}

API cuDeviceGetAttribute(int* value, int attribute, int) {
  BEGIN(INIT);
  long arch = setting("STANDIN_ARCH", 80);
  switch (attribute) {
    case 16: *value = 8; break;
    case 18: *value = arch == 53 || arch == 72 || arch == 87; break;
    case 38: *value = 4 << 20; break;
    case 75: *value = arch / 10; break;
    case 76: *value = arch % 10; break;
    case 97: *value = 166912; break;
    default: return say(INVALID_VALUE, "attribute %d is unknown", attribute);
  }
  return OK;
}

API cuDeviceTotalMem_v2(size_t* bytes, int) {
  BEGIN(INIT);
  *bytes = setting("STANDIN_MEMORY", 1 << 30);
  return OK;
}

API cuDevicePrimaryCtxRetain(void** found, int) {
  BEGIN(INIT);
  *found = &context;
  ++retained;
  return OK;
}

API cuDevicePrimaryCtxRelease_v2(int) {
  BEGIN(INIT);
  if (!retained) return INVALID_CONTEXT;
  --retained;
  return OK;
}

API cuCtxPushCurrent_v2(void* wanted) {
  BEGIN(INIT);
  if (wanted != &context) return INVALID_CONTEXT;
  current.push_back(wanted);
  return OK;
}

API cuCtxPopCurrent_v2(void** found) {
  BEGIN(INIT);
  if (current.empty()) return INVALID_CONTEXT;
  *found = current.back();
  current.pop_back();
  return OK;
}

API cuCtxSetCurrent(void* wanted) {
  BEGIN(INIT);
  if (wanted && wanted != &context) return INVALID_CONTEXT;
  if (current.empty()) current.push_back(wanted);
  else current.back() = wanted;
  return OK;
}

API cuGetErrorName(int code, const char** name) {
  static const std::map<int, const char*> names = {
      {1, "CUDA_ERROR_INVALID_VALUE"}, {2, "CUDA_ERROR_OUT_OF_MEMORY"}, {3, "CUDA_ERROR_NOT_INITIALIZED"},
      {100, "CUDA_ERROR_NO_DEVICE"}, {200, "CUDA_ERROR_INVALID_IMAGE"}, {201, "CUDA_ERROR_INVALID_CONTEXT"},
      {214, "CUDA_ERROR_ECC_UNCORRECTABLE"}, {400, "CUDA_ERROR_INVALID_HANDLE"}, {500, "CUDA_ERROR_NOT_FOUND"},
      {700, "CUDA_ERROR_ILLEGAL_ADDRESS"}, {702, "CUDA_ERROR_LAUNCH_TIMEOUT"}, {719, "CUDA_ERROR_LAUNCH_FAILED"},
      {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}, {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
      {999, "CUDA_ERROR_UNKNOWN"}};
  auto found = names.find(code);
  *name = found == names.end() ? nullptr : found->second;
  return found == names.end() ? INVALID_VALUE : OK;
}

API cuGetErrorString(int code, const char** text) {
  *text = code == 801 ? nullptr : "as the stand-in was told";
  return *text ? OK : INVALID_VALUE;
}

// For tests: how often a function was called.
extern "C" __attribute__((visibility("default"))) long standin_calls(const char* name) { return calls[name]; }

// NVRTC asks a driver that it finds for what no header tells: this one has none of it.
API cuGetExportTable(const void** table, const void*) {
  *table = nullptr;
  return NOT_FOUND;
}
