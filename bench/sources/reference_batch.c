/*
 * A seqpacket proxy that peeks, sends and takes up to 64 packets a call, as chanproxy does, in C.
 *
 *     reference_batch seqpacket:LISTEN seqpacket:CONNECT
 *
 * The peek leaves everything in the source; what the sink has accepted is then taken, with no buffers,
 * so that the kernel drops it.  SO_PEEK_OFF at 0 makes one recvmmsg see 64 different packets.
 */

#include "reference.h"

#define LARGEST 262144
#define DESCRIPTORS 253
#define BATCH 64

static struct mmsghdr peeking[BATCH], sending[BATCH], taking[BATCH];
static struct iovec parts[BATCH], sendingParts[BATCH];
static _Alignas(struct cmsghdr) char control[BATCH][CMSG_SPACE(DESCRIPTORS * sizeof(int))];

static void forget(struct end *end)
{
    (void)end;
}

static void peekFromTheHead(int fd)
{
    int zero = 0;
    checked(setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof zero), "SO_PEEK_OFF");
}

static int peek(int fd)
{
    for (int i = 0; i < BATCH; i++)
        peeking[i].msg_hdr.msg_controllen = sizeof control[i];
    int flags = MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    return recvmmsg(fd, peeking, BATCH, flags, NULL);
}

/* A peek hands out duplicates. */
static void closeDescriptors(int count)
{
    for (int i = 0; i < count; i++) {
        struct cmsghdr *header = CMSG_FIRSTHDR(&peeking[i].msg_hdr);
        if (header == NULL || header->cmsg_type != SCM_RIGHTS)
            continue;
        int *fds = (int *)CMSG_DATA(header);
        for (size_t j = 0; j < (header->cmsg_len - CMSG_LEN(0)) / sizeof(int); j++)
            close(fds[j]);
    }
}

static int sendBatch(int fd, int count)
{
    for (int i = 0; i < count; i++) {
        size_t length = peeking[i].msg_hdr.msg_controllen;
        sendingParts[i].iov_len = peeking[i].msg_len;
        sending[i].msg_hdr.msg_controllen = length;
        sending[i].msg_hdr.msg_control = length ? control[i] : NULL;
    }
    return sendmmsg(fd, sending, count, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static enum pumped pump(struct end *from, struct end *to)
{
    if (from->state == NULL) {
        peekFromTheHead(from->fd);
        from->state = &peeking;
    }
    int count = peek(from->fd);
    if (count < 0)
        return errno == EAGAIN ? GO_ON : OVER;
    int whole = 0;
    while (whole < count && peeking[whole].msg_len > 0)
        whole++;
    if (whole == 0)
        return OVER;
    int sent = sendBatch(to->fd, whole);
    int full = sent < 0 && (errno == EAGAIN || errno == ETOOMANYREFS);
    closeDescriptors(count);
    if (sent < 0 && !full)
        return OVER;
    if (sent > 0 && recvmmsg(from->fd, taking, sent, MSG_DONTWAIT, NULL) != sent)
        fail("took less than was peeked");
    if (sent == whole)
        return GO_ON;
    peekFromTheHead(from->fd);
    return SINK_IS_FULL;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        fail("usage: reference_batch LISTEN CONNECT");
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){malloc(LARGEST), LARGEST};
        sendingParts[i] = parts[i];
        peeking[i].msg_hdr = (struct msghdr){
            .msg_iov = &parts[i],
            .msg_iovlen = 1,
            .msg_control = control[i],
        };
        sending[i].msg_hdr = (struct msghdr){.msg_iov = &sendingParts[i], .msg_iovlen = 1};
    }
    serve(argv[1], argv[2]);
}
