// A stand-in for libnvidia-ml.so.1: a device at 0000:01:00.0, 1410 MHz, 61 °C, which each question about heat finds a
// quarter of a second later.
#include <cstdint>
#include <cstring>
#define API extern "C" __attribute__((visibility("default"))) int

struct Violation { uint64_t reference, violated; };
static char device;
static uint64_t asked = 0;

API nvmlInit_v2() { return 0; }

API nvmlDeviceGetHandleByPciBusId_v2(const char* bus, void** found) {
  *found = &device;
  return strcmp(bus, "0000:01:00.0") ? 6 : 0;
}

API nvmlDeviceGetClockInfo(void* which, int type, unsigned* mhz) {
  *mhz = 1410;
  return which == &device && type == 1 ? 0 : 2;
}

API nvmlDeviceGetTemperature(void* which, int sensor, unsigned* degrees) {
  *degrees = 61;
  return which == &device && sensor == 0 ? 0 : 2;
}

API nvmlDeviceGetViolationStatus(void* which, int policy, Violation* found) {
  if (which != &device || policy > 1) return 2;
  *found = {0, policy == 1 ? ++asked * 250000000 : 1000000000};
  return 0;
}
