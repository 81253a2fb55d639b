// A stand-in for libcuda.so.1, for tests on machines without a GPU. "Device memory" is the host's, kernels are compiled
// for the CPU. What is asynchronous on a device is done as late as the driver allows, so that whoever forgets to wait
// finds old bytes; what a device would refuse, or destroy silently, is an error.
//
// The environment:
//   STANDIN_DEVICES   how many there are (1)
//   STANDIN_ARCH      their compute capability ("80")
//   STANDIN_MEMORY    bytes that each has (1 GiB)
//   STANDIN_FAIL      NAME:CODE[:NTH]: the NTH (first) call of NAME, and each later one, gives CODE; "kernel": the NTH
//                     kernel fails as it runs, which the next that waits for it is told
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

enum Code {
  OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
  INVALID_IMAGE = 200, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600,
  ILLEGAL_ADDRESS = 700, LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901,
  CAPTURE_UNMATCHED = 903,
};

using Work = std::function<int()>;  // what a stream does when its turn comes

struct Graph { std::vector<Work> works; };

struct Stream {
  std::deque<Work> works;
  Graph* capturing = nullptr;
  bool invalidated = false;
  int add(Work work);  // to the graph that is captured, or to what is to be done
  int run();           // all that is to be done
};

int say(int code, const char* format, ...) __attribute__((format(printf, 2, 3)));  // on stderr why; gives the code
long setting(const char* name, long otherwise);

bool is_inside(uint64_t address, size_t n);  // whether these bytes lie in one allocation
int check_borders();                         // ILLEGAL_ADDRESS where a kernel wrote beside an allocation
int run_all();                               // every stream
int kernel_code();                           // what STANDIN_FAIL has for the next kernel

// At the start of each function: other threads wait, errors of the process's device and those that were asked for are
// returned.
struct Call {
  enum Needs { NOTHING, INIT, CONTEXT };
  Call(const char* name, Needs needs);
  std::unique_lock<std::recursive_mutex> lock;
  int code;
};
#define API extern "C" __attribute__((visibility("default"))) int
#define BEGIN(needs) Call call(__func__, Call::needs); if (call.code) return call.code
