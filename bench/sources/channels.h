/* What the load and the references share: kinds of channels, addresses, epoll. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* seqpacket:PATH and unix:PATH; tcp:PORT to listen and tcp:PORT to connect, on 127.0.0.1. */
enum kind { SEQPACKET, UNIX, TCP };

struct address {
    enum kind kind;
    socklen_t length;
    union {
        struct sockaddr any;
        struct sockaddr_un unixPath;
        struct sockaddr_in internet;
    };
};

static inline __attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static inline int checked(int result, const char *what)
{
    if (result < 0)
        fail("%s: %s", what, strerror(errno));
    return result;
}

static inline struct address parseAddress(const char *text)
{
    struct address address = {0};
    const char *value = strchr(text, ':');
    if (value == NULL)
        fail("%s: no address", text);
    value++;
    if (strncmp(text, "tcp:", 4) == 0) {
        address.kind = TCP;
        address.length = sizeof address.internet;
        address.internet.sin_family = AF_INET;
        address.internet.sin_port = htons(atoi(value));
        address.internet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return address;
    }
    address.kind = strncmp(text, "unix:", 5) == 0 ? UNIX : SEQPACKET;
    address.length = sizeof address.unixPath;
    address.unixPath.sun_family = AF_UNIX;
    if (strlen(value) >= sizeof address.unixPath.sun_path)
        fail("%s: too long", value);
    strcpy(address.unixPath.sun_path, value);
    return address;
}

static inline int newSocket(const struct address *address, int flags)
{
    int type = address->kind == SEQPACKET ? SOCK_SEQPACKET : SOCK_STREAM;
    return checked(socket(address->any.sa_family, type | SOCK_CLOEXEC | flags, 0), "socket");
}

static inline int listenOn(const struct address *address)
{
    int fd = newSocket(address, SOCK_NONBLOCK), one = 1;
    if (address->kind == TCP)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    checked(bind(fd, &address->any, address->length), "bind");
    checked(listen(fd, 4096), "listen");
    return fd;
}

static inline int connectTo(const struct address *address)
{
    int fd = newSocket(address, 0);
    checked(connect(fd, &address->any, address->length), "connect");
    return fd;
}

static inline void watch(int epoll, int operation, int fd, uint32_t events, void *what)
{
    struct epoll_event event = {.events = events, .data.ptr = what};
    checked(epoll_ctl(epoll, operation, fd, &event), "epoll_ctl");
}
