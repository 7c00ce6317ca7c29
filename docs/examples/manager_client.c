/*
 * A client of the manager in plain C: puts a channel through chanproxy, and watches a container.
 *
 *     cc -Wall -Wextra -Werror -o manager_client manager_client.c
 *     ./manager_client SOCKET CONTAINER REPLIES
 *
 * REPLIES is how many replies of the watcher are printed before it ends.
 */
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MOST 8 /* descriptors on one packet, here; the kernel allows 253 */
#define MANAGER "org.chanproxy.Manager."

/* One packet, with its descriptors.  They stay ours: the other side gets duplicates. */
static void sendPacket(int to, const char *text, const int *descriptors, int count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MOST * sizeof(int))];
    } control = {0};
    struct iovec part = {(void *)text, strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), descriptors, count * sizeof(int));
    }
    if (sendmsg(to, &message, MSG_NOSIGNAL) < 0)
        err(1, "sendmsg");
}

/* One packet; returns its only descriptor, or -1 when it has none. */
static int receivePacket(int from, char *text, size_t size)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {text, size - 1};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = CMSG_LEN(sizeof(int)), /* CMSG_SPACE may have room for two */
    };
    ssize_t length = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
    if (length < 0)
        err(1, "recvmsg");
    if (length == 0)
        errx(1, "the other side has closed the connection");
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        errx(1, "the packet is larger than expected");
    text[length] = '\0';
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int descriptor = -1;
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(&descriptor, CMSG_DATA(header), sizeof descriptor);
    return descriptor;
}

/* A call is one packet, and so is its reply: JSON, which a real program would parse. */
static void call(int manager, const char *text, const int *descriptors, int count)
{
    char reply[65536];
    sendPacket(manager, text, descriptors, count);
    receivePacket(manager, reply, sizeof reply);
    printf("reply: %s\n", reply);
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char text[4096];
    if (argc != 4 || strlen(argv[1]) >= sizeof address.sun_path || strlen(argv[2]) > 1024)
        errx(2, "usage: manager_client SOCKET CONTAINER REPLIES");
    const char *container = argv[2]; /* letters, digits, ".-_": nothing that JSON would escape */
    setvbuf(stdout, NULL, _IOLBF, 0);

    int manager = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path, argv[1]);
    if (manager < 0 || connect(manager, (struct sockaddr *)&address, sizeof address) < 0)
        err(1, "%s", argv[1]);

    /* Two pairs of sockets.  We keep [0] of each: what a program inside the container and its
     * peer would have.  chanproxy gets [1] of each, and carries messages between the two. */
    int inside[2], outside[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, inside) < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, outside) < 0)
        err(1, "socketpair");
    /* The counter of messages that are not handled yet.  In semaphore mode each read takes one. */
    int counter = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    if (counter < 0)
        err(1, "eventfd");

    /* The order of the descriptors is in the interface file: container channel, remote channel,
     * counter.  lifetime = connection: the channel ends when we disconnect. */
    int given[] = {inside[1], outside[1], counter};
    snprintf(text, sizeof text,
             "{\"method\":\"" MANAGER "ProxyWakeChannel\",\"parameters\":{\"container\":\"%s\","
             "\"name\":\"example\",\"lifetime\":\"connection\"}}",
             container);
    call(manager, text, given, 3);
    close(inside[1]);
    close(outside[1]);

    /* As the peer outside: a message, which carries a descriptor (our standard output). */
    int carried = STDOUT_FILENO;
    sendPacket(outside[0], "hello", &carried, 1);

    /* As the program inside: it arrives, and its descriptor with it. */
    int descriptor = receivePacket(inside[0], text, sizeof text);
    if (descriptor < 0)
        errx(1, "the descriptor has not arrived");
    dprintf(descriptor, "inside: %s\n", text);
    close(descriptor);

    /* It is not handled yet, so the container cannot be suspended now: an error reply. */
    snprintf(text, sizeof text,
             "{\"method\":\"" MANAGER "SuspendContainer\",\"parameters\":{\"container\":\"%s\"}}",
             container);
    call(manager, text, NULL, 0);

    /* Handled: one off the counter. */
    uint64_t one;
    if (read(counter, &one, sizeof one) != sizeof one)
        err(1, "counter");
    printf("handled: %llu\n", (unsigned long long)one);

    /* Watch: with "more" the first reply is the present state, and each change is one more. */
    snprintf(text, sizeof text,
             "{\"method\":\"" MANAGER "RegisterWakeWatcher\",\"more\":true,"
             "\"parameters\":{\"container\":\"%s\"}}",
             container);
    sendPacket(manager, text, NULL, 0);
    for (int left = atoi(argv[3]); left > 0; left--) {
        receivePacket(manager, text, sizeof text);
        printf("watching: %s\n", text);
    }
    return 0;
}
