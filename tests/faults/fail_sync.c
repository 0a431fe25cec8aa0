/* Preloaded into a node by tests: fsync, fdatasync and pwritev2 with RWF_DSYNC fail with EIO while the file named by
   EDGESTORE_FAIL_SYNC exists, and take SLOW_US longer while the one named by SLOW_SYNC does. While the one named by
   FAIL_READ does, nothing of a segment can be read; where that file holds "part-of-a-path offset length", nothing of
   these bytes of such files. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static int unreadable(int fd, off_t offset, size_t length) {
    if (!is_there("FAIL_READ"))
        return 0;
    char link[64], path[4096], part[256] = ".segment";
    long long bad = 0, bad_bytes = 1LL << 62;
    FILE *range = fopen(getenv("FAIL_READ"), "re");
    if (range) {
        if (fscanf(range, "%255s %lld %lld", part, &bad, &bad_bytes) != 3)
            strcpy(part, ".segment");
        fclose(range);
    }
    if (bad >= offset + (long long)length || offset >= bad + bad_bytes)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t end = readlink(link, path, sizeof path - 1);
    if (end < 0)
        return 0;
    path[end] = 0;
    return strstr(path, part) != NULL;
}

#define FAIL_UNREADABLE(fd, offset, length)                                                                            \
    if (unreadable(fd, offset, length)) {                                                                              \
        errno = EIO;                                                                                                   \
        return -1;                                                                                                     \
    }

ssize_t pread(int fd, void *buffer, size_t length, off_t offset) {
    ssize_t (*real)(int, void *, size_t, off_t) = (ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread");
    FAIL_UNREADABLE(fd, offset, length)
    return real(fd, buffer, length, offset);
}

ssize_t pread64(int fd, void *buffer, size_t length, off_t offset) {
    return pread(fd, buffer, length, offset);
}

ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    ssize_t (*real)(int, const struct iovec *, int, off_t, int) =
        (ssize_t (*)(int, const struct iovec *, int, off_t, int))dlsym(RTLD_NEXT, "preadv2");
    FAIL_UNREADABLE(fd, offset, parts[0].iov_len)
    return real(fd, parts, count, offset, flags);
}

ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return preadv2(fd, parts, count, offset, flags);
}
