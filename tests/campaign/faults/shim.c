/* Make the n-th write, sync or read of files below a folder fail, or kill the process
 * there. Loaded with LD_PRELOAD; does nothing until fault_arm is called. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2, READS = 4 };
enum { ONCE = 0, FROM_THEN_ON = 1, SHORT = 2, KILL = 3, KILL_WITHIN = 4 };

static char folder[4096];
static int armed_kind, armed_error, armed_mode;
static atomic_long left, hits;

void fault_arm(const char *below, int kind, long nth, int error, int mode) {
    snprintf(folder, sizeof folder, "%s", below);
    armed_error = error;
    armed_mode = mode;
    atomic_store(&hits, 0);
    atomic_store(&left, nth);
    armed_kind = kind;
}

long fault_hits(void) { return atomic_load(&hits); }

/* Whether this call fails. */
static int fails(int fd, int kind) {
    if (!(armed_kind & kind)) return 0;
    char link[64], path[4096];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    long now = atomic_fetch_sub(&left, 1);
    if (now == 1 || (now < 1 && armed_mode == FROM_THEN_ON)) {
        atomic_fetch_add(&hits, 1);
        return 1;
    }
    return 0;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL do { \
    if (armed_mode >= KILL) raise(SIGKILL); \
    errno = armed_error; \
    return -1; \
} while (0)

/* End the process within a write, or return what a short write returns. */
static ssize_t half(ssize_t written) {
    if (armed_mode == KILL_WITHIN) raise(SIGKILL);
    return written;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (fails(fd, WRITES)) {
        if (armed_mode < SHORT || armed_mode == KILL || size < 2) FAIL;
        return half(NEXT(write)(fd, data, size / 2));
    }
    return NEXT(write)(fd, data, size);
}

#define PWRITE(name, offset_t) \
    ssize_t name(int fd, const void *data, size_t size, offset_t at) { \
        if (fails(fd, WRITES)) { \
            if (armed_mode < SHORT || armed_mode == KILL || size < 2) FAIL; \
            return half(NEXT(name)(fd, data, size / 2, at)); \
        } \
        return NEXT(name)(fd, data, size, at); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (fails(fd, WRITES)) FAIL;
    return NEXT(writev)(fd, parts, count);
}

int ftruncate(int fd, off_t size) {
    if (fails(fd, WRITES)) FAIL;
    return NEXT(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size) {
    if (fails(fd, WRITES)) FAIL;
    return NEXT(ftruncate64)(fd, size);
}

int fsync(int fd) {
    if (fails(fd, SYNCS)) FAIL;
    return NEXT(fsync)(fd);
}

int fdatasync(int fd) {
    if (fails(fd, SYNCS)) FAIL;
    return NEXT(fdatasync)(fd);
}

ssize_t read(int fd, void *data, size_t size) {
    if (fails(fd, READS)) FAIL;
    return NEXT(read)(fd, data, size);
}

ssize_t pread(int fd, void *data, size_t size, off_t at) {
    if (fails(fd, READS)) FAIL;
    return NEXT(pread)(fd, data, size, at);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t at) {
    if (fails(fd, READS)) FAIL;
    return NEXT(pread64)(fd, data, size, at);
}
