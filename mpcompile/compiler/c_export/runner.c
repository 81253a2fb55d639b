/*
 * Runs an exported network as often as it is told to, on a board that has neither Python nor TVM: `bench --ssh` links it
 * with the library, statically, and talks to it by lines. Lower and Upper are the library's name (of mixed case, so that
 * no name is one of them), Sizes its ports' sizes.
 *
 *   runner [THREADS]    0, or without it: all CPUs that it may use; more than those are refused (sysexits.h's EX_USAGE)
 *   first it says       {"threads": 4, "cpu": "...", "outputs": "fnv1a of the outputs' bytes", "workspace": bytes}
 *   run N               the seconds of N runs of the network; with one thread, less those spent waiting for a core
 *   reference N         the same for a piece of constant work, by which a disturbed board is recognised
 *   state               {"governor": "...", "clock": MHz, "throttled": bits, "temperature": °C} as the system tells; 0, ""
 *
 * It ends when its input does.
 */
#define _GNU_SOURCE
#include <glob.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#define JOIN(a, b) a##_##b
#define NAMED(a, b) JOIN(a, b)

enum { INPUTS = NAMED(Upper, INPUTS), PORTS = NAMED(Upper, INPUTS) + NAMED(Upper, OUTPUTS), MOST_THREADS = 256 };
static const size_t sizes[PORTS] = {Sizes};

/* -- threads: a pool that spins for a while before it sleeps, since a network starts them once a layer --------------- */
enum { SPINS = 20000 };
static struct {
  pthread_mutex_t lock;
  pthread_cond_t wake;
  atomic_uint turn;
  atomic_int left, code;
  NAMED(Lower, task) task;
  void *state;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void *worker(void *number) {
  unsigned seen = 0;
  for (;;) {
    for (int i = 0; i < SPINS && atomic_load(&pool.turn) == seen; ++i) atomic_signal_fence(memory_order_seq_cst);
    if (atomic_load(&pool.turn) == seen) {
      pthread_mutex_lock(&pool.lock);
      while (atomic_load(&pool.turn) == seen) pthread_cond_wait(&pool.wake, &pool.lock);
      pthread_mutex_unlock(&pool.lock);
    }
    ++seen;
    if (pool.task(pool.state, (int)(intptr_t)number)) atomic_store(&pool.code, 1);
    atomic_fetch_sub(&pool.left, 1);
  }
  return 0;
}

static int start(int threads) {
  for (intptr_t i = 1; i < threads; ++i) {
    pthread_t thread;
    if (pthread_create(&thread, 0, worker, (void *)i)) return 0;
  }
  return 1;
}

static int parallel_for(void *context, int tasks, NAMED(Lower, task) task, void *state) {
  (void)context;
  pool.task = task;
  pool.state = state;
  atomic_store(&pool.code, 0);
  atomic_store(&pool.left, tasks - 1);
  pthread_mutex_lock(&pool.lock);
  atomic_fetch_add(&pool.turn, 1);
  pthread_cond_broadcast(&pool.wake);
  pthread_mutex_unlock(&pool.lock);
  if (task(state, 0)) atomic_store(&pool.code, 1);
  for (int i = 0; atomic_load(&pool.left); ++i)
    if (i >= SPINS) sched_yield();
  return atomic_load(&pool.code);
}

/* -- clocks and what the system tells ------------------------------------------------------------------------------- */
static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The file's first line, without what JSON would have to escape; "" where it cannot be read. */
static char *line_of(const char *path, char *text, int size) {
  FILE *file = fopen(path, "r");
  if (!file || !fgets(text, size, file)) *text = 0;
  if (file) fclose(file);
  for (char *p = text; *p; ++p)
    if (*p < ' ' || *p > '~' || *p == '"' || *p == '\\') *p = p[1] ? ' ' : 0;
  return text;
}

/* Seconds that this thread was ready to run and did not, so far. */
static double waited(void) {
  char text[128];
  double ran, waiting;
  return sscanf(line_of("/proc/thread-self/schedstat", text, sizeof text), "%lf %lf", &ran, &waiting) == 2
             ? 1e-9 * waiting : 0;
}

static void model(char *text, int size) {
  line_of("/proc/device-tree/model", text, size);
  if (!*text) snprintf(text, (size_t)size, "a board without a device tree");
}

static unsigned long number_of(const char *pattern, int base) {
  char text[128] = "";
  glob_t found;
  if (!glob(pattern, 0, 0, &found)) {
    line_of(found.gl_pathv[0], text, sizeof text);
    globfree(&found);
  }
  return strtoul(text, 0, base);
}

/* The files that mpcompile/runtime/state.py reads where there is Python. */
static void say_state(void) {
  char governor[128];
  unsigned long throttled = number_of("/sys/devices/platform/soc*/*firmware/get_throttled", 16);
  if (!throttled)
    throttled = number_of("/sys/devices/platform/soc*/*firmware/raspberrypi-hwmon*/hwmon/hwmon*/in0_lcrit_alarm", 10);
  printf("{\"governor\": \"%s\", \"clock\": %lu, \"throttled\": %lu, \"temperature\": %.3f}\n",
         line_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", governor, sizeof governor),
         number_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 10) / 1000,
         throttled,
         (double)number_of("/sys/class/thermal/thermal_zone0/temp", 10) / 1000);
}

static void reference(void) {
  static uint32_t block[4096];
  static volatile uint32_t sink;
  uint32_t a = sink + 1, b = 0;
  for (int i = 0; i < 4096; ++i) {
    a = (a << 5 | a >> 27) ^ block[i];
    b += a * 2654435761u;
  }
  sink = b;
}

int main(int argc, char **argv) {
  const float *inputs[INPUTS];
  float *outputs[PORTS - INPUTS];
  void *workspace = 0;
  char command[16], cpu[128];
  uint32_t noise = 1;
  uint64_t hash = 14695981039346656037ull;
  cpu_set_t allowed;
  int threads = argc > 1 ? atoi(argv[1]) : 0, code = 0;
  const int cpus = sched_getaffinity(0, sizeof allowed, &allowed) ? 0 : CPU_COUNT(&allowed);       /* 0: not told */
  if (cpus && threads > cpus)
    return fprintf(stderr, "%d threads asked for, but there are %d CPUs for them\n", threads, cpus), EX_USAGE;
  if (threads < 1) threads = cpus ? cpus : 1;
  if (threads > MOST_THREADS) return fprintf(stderr, "%d threads: at most %d\n", threads, MOST_THREADS), EX_USAGE;
  const size_t bytes = NAMED(Upper, WORKSPACE_BYTES)(threads);
  if (posix_memalign(&workspace, NAMED(Upper, WORKSPACE_ALIGNMENT), bytes))
    return fprintf(stderr, "out of memory\n"), 1;
  for (int i = 0; i < PORTS; ++i) {
    float *data = 0;
    if (posix_memalign((void **)&data, 64, sizes[i] * sizeof *data)) return fprintf(stderr, "out of memory\n"), 1;
    for (size_t k = 0; k < sizes[i]; ++k) {              /* the same numbers on every board, from -1 to 1 */
      noise = noise * 1664525u + 1013904223u;
      data[k] = (float)(noise >> 8) / 8388608.0f - 1.0f;
    }
    if (i < INPUTS) inputs[i] = data;
    else outputs[i - INPUTS] = data;
  }
  if (!start(threads)) return fprintf(stderr, "cannot start %d threads\n", threads), 1;
#define ONCE() NAMED(Lower, run_parallel)(inputs, outputs, workspace, bytes, threads, parallel_for, 0)
  if ((code = ONCE())) return fprintf(stderr, "%s\n", NAMED(Lower, error)(code)), 1;
  for (int i = INPUTS; i < PORTS; ++i)
    for (size_t k = 0; k < sizes[i] * sizeof(float); ++k)
      hash = (hash ^ ((const unsigned char *)outputs[i - INPUTS])[k]) * 1099511628211ull;
  model(cpu, sizeof cpu);
  printf("{\"threads\": %d, \"cpu\": \"%s\", \"outputs\": \"%016llx\", \"workspace\": %lu}\n", threads, cpu,
         (unsigned long long)hash, (unsigned long)bytes);
  while (fflush(stdout) == 0 && scanf("%15s", command) == 1) {
    long n = 0;
    if (!strcmp(command, "state")) {
      say_state();
      continue;
    }
    /* Several threads wait together, or for each other: only one thread's waiting can be taken off. */
    const int network = !strcmp(command, "run");
    if ((!network && strcmp(command, "reference")) || scanf("%ld", &n) != 1) return fprintf(stderr, "bad command\n"), 2;
    const double before = waited(), from = seconds();
    for (long i = 0; i < n && !code; ++i)
      if (network) code = ONCE();
      else reference();
    const double took = seconds() - from;
    if (code) return fprintf(stderr, "%s\n", NAMED(Lower, error)(code)), 1;
    const double wait = threads == 1 || !network ? waited() - before : 0;
    printf("%.9f\n", wait < took ? took - wait : took);
  }
  return 0;
}
