/* Preloaded into a node by tests: fsync, fdatasync and pwritev2 with RWF_DSYNC fail with EIO while the file named by
   EDGESTORE_FAIL_SYNC exists, and take SLOW_US longer while the one named by SLOW_SYNC does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#define SLOW_US 60000

static int is_there(const char *name) {
    const char *path = getenv(name);
    return path && access(path, F_OK) == 0;
}

static int failing(void) {
    if (is_there("SLOW_SYNC"))
        usleep(SLOW_US);
    return is_there("EDGESTORE_FAIL_SYNC");
}

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (failing()) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}

int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (failing()) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    ssize_t (*real)(int, const struct iovec *, int, off_t, int) =
        (ssize_t (*)(int, const struct iovec *, int, off_t, int))dlsym(RTLD_NEXT, "pwritev2");
    if (flags & RWF_DSYNC && failing()) {
        errno = EIO;
        return -1;
    }
    return real(fd, parts, count, offset, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    ssize_t (*real)(int, const struct iovec *, int, off_t, int) =
        (ssize_t (*)(int, const struct iovec *, int, off_t, int))dlsym(RTLD_NEXT, "pwritev64v2");
    if (flags & RWF_DSYNC && failing()) {
        errno = EIO;
        return -1;
    }
    return real(fd, parts, count, offset, flags);
}
