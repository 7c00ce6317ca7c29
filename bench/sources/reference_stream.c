/*
 * Stream proxies in C, two ways.
 *
 *     reference_stream copy LISTEN CONNECT      read and write, 64 KiB at a time
 *     reference_stream splice LISTEN CONNECT    through a pipe, with no copy by us
 *
 * Neither carries descriptors.
 */

#include "reference.h"

#define BLOCK 65536
#define TURN 16

/* Read, or in the pipe, and not gone yet; kept with its end only while the sink is full. */
struct rest {
    int pipe[2];
    size_t begin, end;
    struct rest *next;
    char data[];
};

static int splicing;
static struct rest *unused;

static struct rest *newRest(void)
{
    struct rest *rest = unused;
    if (rest != NULL) {
        unused = rest->next;
        return rest;
    }
    rest = malloc(sizeof *rest + (splicing ? 0 : BLOCK));
    rest->begin = rest->end = 0;
    if (splicing) {
        checked(pipe2(rest->pipe, O_CLOEXEC | O_NONBLOCK), "pipe2");
        fcntl(rest->pipe[1], F_SETPIPE_SZ, 4 * BLOCK);
    }
    return rest;
}

static void keepForLater(struct rest *rest)
{
    rest->next = unused;
    unused = rest;
}

static void forget(struct end *end)
{
    struct rest *rest = end->state;
    if (rest == NULL)
        return;
    if (splicing) {
        close(rest->pipe[0]);
        close(rest->pipe[1]);
    }
    free(rest);
}

static ssize_t fill(int fd, struct rest *rest)
{
    int flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
    if (splicing)
        return splice(fd, NULL, rest->pipe[1], NULL, 4 * BLOCK, flags);
    return recv(fd, rest->data, BLOCK, MSG_DONTWAIT);
}

static ssize_t drain(int fd, struct rest *rest)
{
    size_t length = rest->end - rest->begin;
    int flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
    if (splicing)
        return splice(rest->pipe[0], NULL, fd, NULL, length, flags);
    return send(fd, rest->data + rest->begin, length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static enum pumped carry(struct end *from, struct end *to, struct rest *rest)
{
    for (int i = 0; i < TURN; i++) {
        if (rest->begin == rest->end) {
            ssize_t got = fill(from->fd, rest);
            if (got <= 0)
                return got < 0 && errno == EAGAIN ? GO_ON : OVER;
            rest->begin = 0;
            rest->end = got;
        }
        ssize_t gone = drain(to->fd, rest);
        if (gone < 0)
            return errno == EAGAIN ? SINK_IS_FULL : OVER;
        rest->begin += gone;
    }
    return GO_ON;
}

static enum pumped pump(struct end *from, struct end *to)
{
    struct rest *rest = from->state ? from->state : newRest();
    enum pumped result = carry(from, to, rest);
    from->state = NULL;
    if (rest->begin == rest->end) {
        keepForLater(rest);
        return result;
    }
    /* With something in hand the only event to count on is room in the sink. */
    from->state = rest;
    return result == OVER ? OVER : SINK_IS_FULL;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        fail("usage: reference_stream copy|splice LISTEN CONNECT");
    splicing = strcmp(argv[1], "splice") == 0;
    serve(argv[2], argv[3]);
}
