/* One thread that writes and syncs what it is handed. It never holds the GIL: where the loop is busy, a thread of Python would
 * wait a switch interval before it could say that a sync is done, and another before it could begin. */
#define _GNU_SOURCE
#include "kernels.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum sync_state { SYNC_IDLE = 0, SYNC_HANDED_OVER, SYNC_DONE, SYNC_STOPPED };

struct syncer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t came;
    enum sync_state state;
    int wake_fd, fd, error, is_left;
    uint64_t offset;
    uint8_t *data;
    size_t length, room;
};

/* 0, or errno. */
static int write_rest(int fd, const uint8_t *data, size_t length, uint64_t offset) {
    while (length) {
        const ssize_t written = pwrite(fd, data, length, (off_t)offset);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        data += written, length -= (size_t)written, offset += (uint64_t)written;
    }
    return fdatasync(fd) < 0 ? errno : 0;
}

static int write_synced(int fd, const uint8_t *data, size_t length, uint64_t offset) {
#ifdef RWF_DSYNC
    const struct iovec part = {.iov_base = (void *)data, .iov_len = length};
    const ssize_t written = pwritev2(fd, &part, 1, (off_t)offset, RWF_DSYNC);
    if (written == (ssize_t)length)
        return 0;
    if (written < 0 && errno != EINTR && errno != EOPNOTSUPP && errno != ENOSYS)
        return errno;
    if (written > 0)
        data += written, length -= (size_t)written, offset += (uint64_t)written;
#endif
    return write_rest(fd, data, length, offset);
}

static void release(struct syncer *syncer) {
    pthread_cond_destroy(&syncer->came);
    pthread_mutex_destroy(&syncer->lock);
    free(syncer->data);
    free(syncer);
}

static void *serve(void *argument) {
    struct syncer *syncer = argument;
    const uint64_t one = 1;
    pthread_mutex_lock(&syncer->lock);
    while (syncer->state != SYNC_STOPPED) {
        if (syncer->state != SYNC_HANDED_OVER) {
            pthread_cond_wait(&syncer->came, &syncer->lock);
            continue;
        }
        pthread_mutex_unlock(&syncer->lock);
        const int error = write_synced(syncer->fd, syncer->data, syncer->length, syncer->offset);
        pthread_mutex_lock(&syncer->lock);
        if (syncer->state == SYNC_STOPPED)
            break;
        syncer->error = error;
        syncer->state = SYNC_DONE;
        while (write(syncer->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
            ;
    }
    const int is_left = syncer->is_left;
    pthread_mutex_unlock(&syncer->lock);
    if (is_left)
        release(syncer);
    return NULL;
}

struct syncer *syncer_start(int wake_fd) {
    struct syncer *syncer = calloc(1, sizeof *syncer);
    if (!syncer)
        return NULL;
    syncer->wake_fd = wake_fd;
    pthread_mutex_init(&syncer->lock, NULL);
    pthread_cond_init(&syncer->came, NULL);
    if (pthread_create(&syncer->thread, NULL, serve, syncer) != 0) {
        release(syncer);
        return NULL;
    }
    return syncer;
}

int syncer_hand_over(struct syncer *syncer, int fd, uint64_t offset, const uint8_t *data, size_t length) {
    int error = 0;
    pthread_mutex_lock(&syncer->lock);
    if (syncer->state != SYNC_IDLE)
        error = EBUSY;
    if (!error && length > syncer->room) {
        uint8_t *grown = realloc(syncer->data, length);
        if (grown)
            syncer->data = grown, syncer->room = length;
        else
            error = ENOMEM;
    }
    if (!error) {
        memcpy(syncer->data, data, length);
        syncer->fd = fd, syncer->offset = offset, syncer->length = length;
        syncer->state = SYNC_HANDED_OVER;
    }
    pthread_mutex_unlock(&syncer->lock);
    if (!error)
        pthread_cond_signal(&syncer->came);
    return error;
}

int syncer_result(struct syncer *syncer) {
    int error = -1;
    pthread_mutex_lock(&syncer->lock);
    if (syncer->state == SYNC_DONE) {
        syncer->state = SYNC_IDLE;
        error = syncer->error;
    }
    pthread_mutex_unlock(&syncer->lock);
    return error;
}

void syncer_stop(struct syncer *syncer) {
    const pthread_t thread = syncer->thread;
    pthread_mutex_lock(&syncer->lock);
    const int is_left = syncer->is_left = syncer->state == SYNC_HANDED_OVER;
    syncer->state = SYNC_STOPPED;
    pthread_cond_signal(&syncer->came);
    pthread_mutex_unlock(&syncer->lock);
    if (is_left) {
        pthread_detach(thread);
        return;
    }
    pthread_join(thread, NULL);
    release(syncer);
}
