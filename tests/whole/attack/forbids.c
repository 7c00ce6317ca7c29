/*
 * Preloaded into the service: what may wait for somebody else must not be done by its first thread.
 *
 * To close a socket that lingers; to close, look at or read what is below FORBIDDEN; to open the
 * memory or the environment of a process.  Whoever does it anyway is named in the file SAID.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static pid_t watched;

__attribute__((constructor)) static void begin(void)
{
    /* Processes that it makes are others. */
    watched = getpid();
    unsetenv("LD_PRELOAD");
}

static int isFirst(void)
{
    return getpid() == watched && gettid() == watched;
}

static void say(const char *what, const char *of)
{
    int said = open(getenv("SAID"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    dprintf(said, "%s %s\n", what, of);
    fsync(said);
    _exit(99);
}

static int isForbidden(int fd, char *link, size_t room)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, link, room - 1);
    link[length < 0 ? 0 : length] = 0;
    const char *below = getenv("FORBIDDEN");
    return below && strncmp(link, below, strlen(below)) == 0;
}

static void check(const char *what, int fd)
{
    char link[512];
    if (isFirst() && isForbidden(fd, link, sizeof link))
        say(what, link);
}

static void checkClose(int fd)
{
    struct linger linger;
    socklen_t length = sizeof linger;
    if (isFirst() && getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &length) == 0
        && linger.l_onoff && linger.l_linger)
        say("close", "a socket that lingers");
    check("close", fd);
}

int close(int fd)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "close");
    checkClose(fd);
    return real(fd);
}

int close_range(unsigned first, unsigned last, int flags)
{
    static int (*real)(unsigned, unsigned, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "close_range");
    for (unsigned fd = first; fd <= last && fd < 65536; fd++)
        checkClose(fd);
    return real(first, last, flags);
}

int fstat(int fd, struct stat *found)
{
    static int (*real)(int, struct stat *);
    if (!real)
        real = dlsym(RTLD_NEXT, "fstat");
    check("fstat", fd);
    return real(fd, found);
}

int open64(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    if (!real)
        real = dlsym(RTLD_NEXT, "open64");
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    const char *end = strrchr(path, '/'), *below = getenv("FORBIDDEN");
    if (isFirst() && strncmp(path, "/proc/", 6) == 0 && end
        && (strcmp(end, "/mem") == 0 || strcmp(end, "/environ") == 0))
        say("open", path);
    if (isFirst() && below && strncmp(path, below, strlen(below)) == 0)
        say("open", path);
    return real(path, flags, mode);
}
