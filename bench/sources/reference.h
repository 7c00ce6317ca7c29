/*
 * What a plain proxy in C does around its pump: accept, connect, wait, close.
 *
 * A reference defines pump() and calls serve().  It is made to be measured against, not to be used: it
 * closes both ends as soon as one direction has ended, and it ends at the first surprise.
 */

#include "channels.h"
#include <netinet/tcp.h>
#include <sys/resource.h>

struct end {
    int fd;
    int blocked;     /* what comes from here waits for room in the other end */
    uint32_t events; /* as armed */
    struct end *other;
    void *state;     /* the pump's own, for what comes from here */
};

enum pumped { GO_ON, SINK_IS_FULL, OVER };

/* Carry what is there now from one end to the other, a fair turn of it. */
static enum pumped pump(struct end *from, struct end *to);
/* Give back what a pump keeps for an end. */
static void forget(struct end *end);

/* What was sent at once goes on at once, as through the other proxies. */
static inline void dontDelay(const struct address *address, int fd)
{
    int one = 1;
    if (address->kind == TCP)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static inline void arm(int epoll, struct end *end)
{
    uint32_t events = (end->blocked ? 0 : EPOLLIN) | (end->other->blocked ? EPOLLOUT : 0);
    if (events != end->events)
        watch(epoll, EPOLL_CTL_MOD, end->fd, events, end);
    end->events = events;
}

static inline void closePair(struct end *end, struct end **over)
{
    struct end *other = end->other;
    forget(end);
    forget(other);
    close(end->fd);
    close(other->fd);
    end->fd = other->fd = -1;
    /* Events of theirs may still be in this round's list. */
    other->state = end->state = NULL;
    end->state = *over;
    *over = end;
}

static inline void acceptAll(int epoll, int listening, const struct address *front,
                             const struct address *back)
{
    for (;;) {
        int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EAGAIN)
                return;
            fail("accept: %s", strerror(errno));
        }
        dontDelay(front, fd);
        int far = connectTo(back);
        dontDelay(back, far);
        fcntl(far, F_SETFL, O_NONBLOCK);
        struct end *pair = calloc(2, sizeof *pair);
        pair[0] = (struct end){.fd = fd, .events = EPOLLIN, .other = &pair[1]};
        pair[1] = (struct end){.fd = far, .events = EPOLLIN, .other = &pair[0]};
        watch(epoll, EPOLL_CTL_ADD, pair[0].fd, EPOLLIN, &pair[0]);
        watch(epoll, EPOLL_CTL_ADD, pair[1].fd, EPOLLIN, &pair[1]);
    }
}

static inline void happened(int epoll, struct end *end, uint32_t events, struct end **over)
{
    struct end *other = end->other;
    enum pumped result = GO_ON;
    if (events & EPOLLOUT && other->blocked) {
        result = pump(other, end);
        other->blocked = result == SINK_IS_FULL;
    }
    if (result != OVER && events & ~EPOLLOUT && !end->blocked) {
        result = pump(end, other);
        end->blocked = result == SINK_IS_FULL;
    }
    if (result == OVER) {
        closePair(end, over);
        return;
    }
    arm(epoll, end);
    arm(epoll, other);
}

static inline void serve(const char *listen, const char *connect)
{
    struct address front = parseAddress(listen), back = parseAddress(connect);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int epoll = checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    int listening = listenOn(&front);
    watch(epoll, EPOLL_CTL_ADD, listening, EPOLLIN, NULL);
    for (;;) {
        struct epoll_event events[256];
        struct end *over = NULL;
        int count = checked(epoll_wait(epoll, events, 256, -1), "epoll_wait");
        for (int i = 0; i < count; i++) {
            struct end *end = events[i].data.ptr;
            if (end == NULL)
                acceptAll(epoll, listening, &front, &back);
            else if (end->fd >= 0)
                happened(epoll, end, events[i].events, &over);
        }
        while (over != NULL) {
            struct end *pair = over < over->other ? over : over->other;
            over = over->state;
            free(pair);
        }
    }
}
