/* Preloaded before libc: kills the process at the n-th call that changes a file or sends data to a server.

   A write is first done by half, so that the file is torn. Calls are counted after arm(n). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long left = -1; /* calls until the kill; negative: never */
static atomic_long counted = 0;

void arm(long calls) { atomic_store(&counted, 0); atomic_store(&left, calls); }

long made(void) { return atomic_load(&counted); }

static int last(void) {
    atomic_fetch_add(&counted, 1);
    return atomic_load(&left) >= 0 && atomic_fetch_sub(&left, 1) == 0;
}

static void end(void) { for (;;) { kill(getpid(), SIGKILL); pause(); } }

/* A step that makes no such call; it is counted with them. */
void step(void) { if (last()) end(); }

/* Writes to pipes and terminals are not counted. */
static int on_disk(int file) {
    struct stat found;
    return fstat(file, &found) == 0 && (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode));
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define TORN(name, parameters, half, whole) \
    ssize_t name parameters { REAL(name); if (on_disk(file) && last()) { half; end(); } return whole; }

TORN(write, (int file, const void *data, size_t size),
     if (size > 1) real(file, data, size / 2), real(file, data, size))
TORN(pwrite, (int file, const void *data, size_t size, off_t at),
     if (size > 1) real(file, data, size / 2, at), real(file, data, size, at))
TORN(pwrite64, (int file, const void *data, size_t size, off64_t at),
     if (size > 1) real(file, data, size / 2, at), real(file, data, size, at))

ssize_t send(int socket, const void *data, size_t size, int flags) {
    REAL(send);
    /* One byte is no message: it wakes the event loop of the same process. */
    if (size > 1 && last()) { real(socket, data, size / 2, flags); end(); }
    return real(socket, data, size, flags);
}

#define WHOLE(name, parameters, arguments) \
    int name parameters { REAL(name); if (last()) end(); return real arguments; }

WHOLE(fsync, (int file), (file))
WHOLE(fdatasync, (int file), (file))
WHOLE(ftruncate, (int file, off_t size), (file, size))
WHOLE(ftruncate64, (int file, off64_t size), (file, size))
WHOLE(rename, (const char *from, const char *to), (from, to))
WHOLE(renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
WHOLE(unlink, (const char *name), (name))
WHOLE(mkdir, (const char *name, mode_t mode), (name, mode))
