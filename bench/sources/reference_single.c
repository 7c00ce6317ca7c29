/*
 * A seqpacket proxy as one writes it first, and as socat is: one packet for each event, with its
 * descriptors.
 *
 *     reference_single seqpacket:LISTEN seqpacket:CONNECT
 */

#include "reference.h"

#define LARGEST 262144
#define DESCRIPTORS 253

/* A packet on its way; kept with its end only while the sink is full. */
struct packet {
    size_t length;
    socklen_t controlLength;
    struct packet *next;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
    char data[LARGEST];
};

static struct packet *unused;

static struct packet *newPacket(void)
{
    struct packet *packet = unused;
    if (packet == NULL)
        return malloc(sizeof *packet);
    unused = packet->next;
    return packet;
}

static void keepForLater(struct packet *packet)
{
    packet->next = unused;
    unused = packet;
}

static void closeDescriptors(struct packet *packet)
{
    struct cmsghdr *header = (struct cmsghdr *)packet->control;
    if (packet->controlLength < CMSG_LEN(sizeof(int)) || header->cmsg_type != SCM_RIGHTS)
        return;
    int *fds = (int *)CMSG_DATA(header);
    for (size_t i = 0; i < (header->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++)
        close(fds[i]);
}

static void forget(struct end *end)
{
    if (end->state == NULL)
        return;
    closeDescriptors(end->state);
    keepForLater(end->state);
}

static struct packet *receivePacket(int fd)
{
    struct packet *packet = newPacket();
    struct iovec part = {packet->data, sizeof packet->data};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = packet->control,
        .msg_controllen = sizeof packet->control,
    };
    ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) {
        keepForLater(packet);
        return NULL;
    }
    packet->length = got;
    packet->controlLength = message.msg_controllen;
    return packet;
}

static int sendPacket(int fd, struct packet *packet)
{
    struct iovec part = {packet->data, packet->length};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = packet->controlLength ? packet->control : NULL,
        .msg_controllen = packet->controlLength,
    };
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static enum pumped pump(struct end *from, struct end *to)
{
    struct packet *packet = from->state ? from->state : receivePacket(from->fd);
    from->state = NULL;
    if (packet == NULL)
        return errno == EAGAIN ? GO_ON : OVER;
    if (packet->length == 0) {
        keepForLater(packet);
        return OVER;
    }
    if (sendPacket(to->fd, packet) < 0) {
        from->state = packet;
        return errno == EAGAIN || errno == ETOOMANYREFS ? SINK_IS_FULL : OVER;
    }
    closeDescriptors(packet);
    keepForLater(packet);
    return GO_ON;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        fail("usage: reference_single LISTEN CONNECT");
    serve(argv[1], argv[2]);
}
