/* Preloaded into the processes of a test: a disk that fills up. Of the writes below $FAULT_ROOT, counted over all processes
   in the file $FAULT_COUNT, number $FAULT_FROM and all that follow fail with ENOSPC; with $FAULT_AT it is the number among
   those to paths that hold this text, in the file's second count, from which on all fail, whatever their path. Without
   $FAULT_FROM they are only counted. What the C library writes on its own account inside fwrite is seen at fwrite. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ERROR_SEEN 0x20 /* glibc's _IO_ERR_SEEN: what ferror() asks for, and compilers ask only that */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int below(const char *path) {
  const char *root = getenv("FAULT_ROOT");
  return root && !strncmp(path, root, strlen(root));
}

/* Whether this write must fail. */
static int full(const char *path) {
  const char *file = getenv("FAULT_COUNT"), *from = getenv("FAULT_FROM"), *at = getenv("FAULT_AT");
  int fd = NEXT(open)(file, O_RDWR | O_CLOEXEC);
  if (fd < 0) return 0;
  int *count = mmap(NULL, 2 * sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (count == MAP_FAILED) return 0;
  int number = __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
  if (at) number = __atomic_add_fetch(count + 1, strstr(path, at) != NULL, __ATOMIC_SEQ_CST);
  munmap(count, 2 * sizeof *count);
  if (!from || number < atoi(from)) return 0;
  errno = ENOSPC;
  return 1;
}

static int full_file(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return below(path) && full(path);
}

/* A file that is made takes room, too. */
static int full_open(const char *path, int flags) {
  char whole[PATH_MAX] = "";
  if (!(flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE || !access(path, F_OK)) return 0;
  if (path[0] != '/' && getcwd(whole, sizeof whole / 2)) strcat(whole, "/");
  strncat(whole, path, sizeof whole - strlen(whole) - 1);
  return below(whole) && full(whole);
}

ssize_t write(int fd, const void *data, size_t size) { return full_file(fd) ? -1 : NEXT(write)(fd, data, size); }

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  return full_file(fd) ? -1 : NEXT(pwrite64)(fd, data, size, at);
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
  if (!full_file(fileno(file))) return NEXT(fwrite)(data, size, count, file);
  file->_flags |= ERROR_SEEN;
  return 0;
}

ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t size, unsigned flags) {
  return full_file(to) ? -1 : NEXT(copy_file_range)(from, at, to, there, size, flags);
}

ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
  return full_file(to) ? -1 : NEXT(sendfile64)(to, from, at, size);
}

int open(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = va_arg(more, mode_t);
  va_end(more);
  return full_open(path, flags) ? -1 : NEXT(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = va_arg(more, mode_t);
  va_end(more);
  return full_open(path, flags) ? -1 : NEXT(open64)(path, flags, mode);
}

int mkdir(const char *path, mode_t mode) { return below(path) && full(path) ? -1 : NEXT(mkdir)(path, mode); }
