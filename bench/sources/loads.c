/*
 * The load: both ends of all channels, cheap enough not to be what is measured.
 *
 *     loads LISTEN          listens for what the proxy connects to, and says where
 *     open FRONT COUNT      connects until there are COUNT channels, each known at both ends
 *     flow SIZE DESCRIPTORS MILLISECONDS CHANNELS
 *                           sends on the first CHANNELS as much as goes, until all has arrived
 *     trips SIZE COUNT      requests and replies on the first channel
 *
 * A line of JSON answers each.  Packets bear a sequence number, and the sink checks it, the length and
 * the descriptor of each; of a packet's other bytes it has the kernel drop what it does not look at.
 * Any mistake ends the program with a line that says which.
 */

#include "loads.h"
#include <sys/eventfd.h>
#include <sys/time.h>
#include <time.h>

#define BATCH 64
#define MOST 16384
#define STALLED_MILLISECONDS 10000

enum kind kind;
static struct address inside;
static int epoll, listening, passed;
static struct end *sources, *sinks;
static int opened, known;
static char *payload;
static struct mmsghdr sending[BATCH], receiving[BATCH];
static struct iovec sendingParts[BATCH][2], receivingParts[BATCH];
static uint64_t sequences[BATCH], received[BATCH];
static union {
    char room[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
} sendingControl, receivingControl[BATCH];
static char *scratch;
#define SCRATCH (256 << 10)

uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void acceptAll(void)
{
    for (;;) {
        int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN)
                return;
            fail("accept: %s", strerror(errno));
        }
        struct end *end = calloc(1, sizeof *end);
        *end = (struct end){.fd = fd, .number = -1};
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, end);
    }
}

/* The first message on a channel is its number: now both ends are known. */
static void introduced(struct end *end)
{
    uint32_t number;
    ssize_t got = recv(end->fd, &number, sizeof number, MSG_DONTWAIT);
    if (got != sizeof number || number >= MOST || sinks[number].fd >= 0)
        fail("wrong: a channel's first message has %zd bytes", got);
    sinks[number] = (struct end){.fd = end->fd, .number = number};
    watch(epoll, EPOLL_CTL_MOD, end->fd, EPOLLIN, &sinks[number]);
    free(end);
    known++;
}

static void settle(int milliseconds)
{
    struct epoll_event events[256];
    int count = checked(epoll_wait(epoll, events, 256, milliseconds), "epoll_wait");
    if (count == 0 && milliseconds)
        fail("stalled: %d of %d channels arrived", known, opened);
    for (int i = 0; i < count; i++) {
        struct end *end = events[i].data.ptr;
        if (end == NULL)
            acceptAll();
        else if (end->number < 0)
            introduced(end);
        else
            fail("wrong: channel %d was closed, or spoke out of turn", end->number);
    }
}

static void openChannels(const char *front, int count)
{
    struct address address = parseAddress(front);
    struct timeval patience = {.tv_sec = STALLED_MILLISECONDS / 1000};
    uint64_t began = nanoseconds();
    if (count > MOST)
        fail("at most %d channels", MOST);
    for (int before = opened; opened < count; opened++) {
        uint32_t number = opened;
        int fd = connectTo(&address);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        sources[number] = (struct end){.fd = fd, .number = number, .isSource = 1};
        checked(send(fd, &number, sizeof number, MSG_NOSIGNAL), "send");
        watch(epoll, EPOLL_CTL_ADD, fd, 0, &sources[number]);
        if ((opened - before) % 32 == 31)
            settle(0);
    }
    while (known < opened)
        settle(STALLED_MILLISECONDS);
    for (int i = 0; i < opened; i++)
        setsockopt(sinks[i].fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    printf("{\"seconds\": %.9f, \"channels\": %d}\n", (nanoseconds() - began) / 1e9, opened);
}

/* Prepare the header arrays for messages of this size. */
static int prepare(size_t size, int descriptors)
{
    /* Packets begin with eight bytes of their own; streams have nothing to tell apart. */
    size_t own = kind == SEQPACKET ? sizeof *sequences : 0;
    struct cmsghdr *header = &sendingControl.align;
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &passed, sizeof passed);
    for (int i = 0; i < BATCH; i++) {
        struct msghdr *out = &sending[i].msg_hdr;
        sendingParts[i][0] = (struct iovec){&sequences[i], own};
        sendingParts[i][1] = (struct iovec){payload, size - own};
        *out = (struct msghdr){.msg_iov = sendingParts[i], .msg_iovlen = 2};
        if (descriptors) {
            out->msg_control = &sendingControl;
            out->msg_controllen = sizeof sendingControl.room;
        }
    }
    /* More than a socket buffer holds is never taken at once. */
    int batch = (256 << 10) / size + 1;
    return batch < BATCH ? batch : BATCH;
}

static uint64_t sendSome(struct end *source, int batch)
{
    for (int i = 0; i < batch; i++)
        sequences[i] = source->messages + i;
    int sent = sendmmsg(source->fd, sending, batch, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno == EAGAIN || errno == ETOOMANYREFS)
            return 0;
        fail("wrong: sending on channel %d: %s", source->number, strerror(errno));
    }
    uint64_t bytes = 0;
    for (int i = 0; i < sent; i++)
        bytes += sending[i].msg_len;
    source->messages += sent;
    return bytes;
}

static void checkPacket(struct end *sink, int i, size_t size, int descriptors)
{
    struct msghdr *message = &receiving[i].msg_hdr;
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    if (receiving[i].msg_len != size || received[i] != sink->messages)
        fail("wrong: packet %llu of %u bytes instead of %llu of %zu on channel %d",
             (unsigned long long)received[i], receiving[i].msg_len,
             (unsigned long long)sink->messages, size, sink->number);
    if (descriptors != (header != NULL && header->cmsg_type == SCM_RIGHTS))
        fail("wrong: a packet %s a descriptor", descriptors ? "without" : "with");
    if (descriptors) {
        int fd;
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
        close(fd);
    }
    sink->messages++;
}

static uint64_t receiveSome(struct end *sink, size_t size, int descriptors)
{
    if (kind != SEQPACKET) {
        /* TCP can drop what it has received without copying it; AF_UNIX cannot. */
        int flags = MSG_DONTWAIT | (kind == TCP ? MSG_TRUNC : 0);
        ssize_t got = recv(sink->fd, scratch, SCRATCH, flags);
        if (got <= 0 && !(got < 0 && errno == EAGAIN))
            fail("wrong: channel %d: %s", sink->number, got ? strerror(errno) : "closed");
        return got > 0 ? got : 0;
    }
    for (int i = 0; i < BATCH; i++) {
        receivingParts[i] = (struct iovec){&received[i], sizeof received[i]};
        receiving[i].msg_hdr = (struct msghdr){
            .msg_iov = &receivingParts[i],
            .msg_iovlen = 1,
            .msg_control = &receivingControl[i],
            .msg_controllen = descriptors ? sizeof receivingControl[i].room : 0,
        };
    }
    int flags = MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC;
    int got = recvmmsg(sink->fd, receiving, BATCH, flags, NULL);
    if (got < 0 && errno != EAGAIN)
        fail("wrong: channel %d: %s", sink->number, strerror(errno));
    uint64_t bytes = 0;
    for (int i = 0; i < got; i++) {
        if (receiving[i].msg_len == 0)
            fail("wrong: channel %d: closed", sink->number);
        checkPacket(sink, i, size, descriptors);
        bytes += receiving[i].msg_len;
    }
    return bytes;
}

static void flow(size_t size, int descriptors, long milliseconds, int channels)
{
    struct epoll_event events[256];
    uint64_t sent = 0, arrived = 0, began, deadline, now;
    int batch = prepare(size, descriptors), going = 1;
    for (int i = 0; i < channels; i++) {
        sources[i].messages = sinks[i].messages = 0;
        watch(epoll, EPOLL_CTL_MOD, sources[i].fd, EPOLLOUT, &sources[i]);
    }
    began = now = nanoseconds();
    deadline = began + milliseconds * 1000000ull;
    while (going || arrived < sent) {
        int count = epoll_wait(epoll, events, 256, STALLED_MILLISECONDS);
        if (count <= 0)
            fail("stalled: %llu bytes of %llu arrived", (unsigned long long)arrived,
                 (unsigned long long)sent);
        now = nanoseconds();
        if (going && now >= deadline) {
            going = 0;
            for (int i = 0; i < channels; i++)
                watch(epoll, EPOLL_CTL_MOD, sources[i].fd, 0, &sources[i]);
        }
        for (int i = 0; i < count; i++) {
            struct end *end = events[i].data.ptr;
            if (end == NULL || end->number < 0)
                fail("wrong: a connection that nobody asked for");
            if (!end->isSource)
                arrived += receiveSome(end, size, descriptors);
            else if (going)
                sent += sendSome(end, batch);
        }
    }
    printf("{\"seconds\": %.9f, \"messages\": %.3f, \"bytes\": %llu}\n",
           (nanoseconds() - began) / 1e9, (double)arrived / size, (unsigned long long)arrived);
}

int main(int argc, char **argv)
{
    char line[512], front[256];
    int descriptors, channels;
    long number;
    size_t size;
    if (argc != 2)
        fail("usage: loads LISTEN");
    setvbuf(stdout, NULL, _IOLBF, 0);
    payload = calloc(1, 1 << 20);
    scratch = malloc(SCRATCH);
    sources = calloc(MOST, sizeof *sources);
    sinks = calloc(MOST, sizeof *sinks);
    for (int i = 0; i < MOST; i++)
        sinks[i].fd = -1;
    passed = checked(eventfd(0, EFD_CLOEXEC), "eventfd");
    epoll = checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    inside = parseAddress(argv[1]);
    kind = inside.kind;
    listening = listenOn(&inside);
    watch(epoll, EPOLL_CTL_ADD, listening, EPOLLIN, NULL);
    printf("{\"listening\": true}\n");
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "open %255s %d", front, &channels) == 2)
            openChannels(front, channels);
        else if (sscanf(line, "flow %zu %d %ld %d", &size, &descriptors, &number, &channels) == 4)
            flow(size, descriptors, number, channels);
        else if (sscanf(line, "trips %zu %ld", &size, &number) == 2)
            trips(sources[0].fd, sinks[0].fd, size, number);
        else
            fail("unknown: %s", line);
    }
    return 0;
}
