/* Requests and replies, one at a time: two threads that block, as simple clients and servers do. */

#include "loads.h"
#include <pthread.h>

struct answerer {
    int fd;
    size_t size;
    long count;
};

/* One whole message of either kind of socket. */
static void receiveAll(int fd, char *buffer, size_t size)
{
    size_t have = 0;
    while (have < size) {
        ssize_t got = recv(fd, buffer + have, size - have, 0);
        if (got <= 0)
            fail("stalled: a round trip: %s", got ? strerror(errno) : "closed");
        if (kind == SEQPACKET && (size_t)got != size)
            fail("wrong: a packet of %zd bytes instead of %zu", got, size);
        have += got;
    }
}

static void sendAll(int fd, const char *buffer, size_t size)
{
    size_t gone = 0;
    while (gone < size)
        gone += checked(send(fd, buffer + gone, size - gone, MSG_NOSIGNAL), "send");
}

static void *answer(void *argument)
{
    struct answerer *answerer = argument;
    char *buffer = malloc(answerer->size);
    for (long i = 0; i < answerer->count; i++) {
        receiveAll(answerer->fd, buffer, answerer->size);
        sendAll(answerer->fd, buffer, answerer->size);
    }
    free(buffer);
    return NULL;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void trips(int asking, int answering, size_t size, long count)
{
    struct answerer answerer = {answering, size, count};
    uint64_t *times = calloc(count, sizeof *times);
    char *buffer = calloc(1, size);
    pthread_t thread;
    if (pthread_create(&thread, NULL, answer, &answerer))
        fail("no thread");
    for (long i = 0; i < count; i++) {
        uint64_t began = nanoseconds();
        sendAll(asking, buffer, size);
        receiveAll(asking, buffer, size);
        times[i] = nanoseconds() - began;
    }
    pthread_join(thread, NULL);
    qsort(times, count, sizeof *times, compare);
    printf("{\"p50\": %.9f, \"p99\": %.9f, \"messages\": %ld}\n", times[count / 2] / 1e9,
           times[count * 99 / 100] / 1e9, 2 * count);
    free(buffer);
    free(times);
}
