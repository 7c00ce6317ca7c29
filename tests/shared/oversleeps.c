/*
 * A program that knows what time it is: oversleeps KIND MS[,MS...] [PATH].
 *
 * Says "ready" before it waits, and of whatever happens what it is and how many milliseconds after
 * its beginning that was.  What it waits on is its standard input, unless the kind says otherwise.
 * Kinds that retry ask for the whole time again when they are interrupted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int64_t began;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static void say(const char *what)
{
    char line[64];
    int size = snprintf(line, sizeof line, "%s %lld\n", what, (long long)(now() - began));
    if (write(1, line, size) != size)
        _exit(3);
}

static void must(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        _exit(2);
    }
}

static int is(const char *kind, const char *name) { return strcmp(kind, name) == 0; }

static void said_by_a_thread(int signal)
{
    (void)signal;
    say("over");
}

static void *paused(void *tid)
{
    *(volatile pid_t *)tid = syscall(SYS_gettid);
    for (;;)
        pause();
    return tid;
}

/* A timer that signals one thread of several. */
static void thread_timer(long ms)
{
    volatile pid_t tid = 0;
    pthread_t thread;
    timer_t timer;
    struct itimerspec when = {.it_value = {ms / 1000, ms % 1000 * 1000000}};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    signal(SIGUSR1, said_by_a_thread);
    pthread_create(&thread, NULL, paused, (void *)&tid);
    while (!tid)
        sched_yield();
    event._sigev_un._tid = tid;
    must(timer_create(CLOCK_MONOTONIC, &event, &timer), "timer_create");
    must(timer_settime(timer, 0, &when, NULL), "timer_settime");
    say("ready");
    for (;;)
        pause();
}

static int epoll_of(int fd)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    must(ep, "epoll_create1");
    must(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
    return ep;
}

/* TERM comes by a signalfd, alone in an epoll. */
static void signal_descriptor(void)
{
    struct epoll_event event;
    struct signalfd_siginfo found;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    must(sigprocmask(SIG_BLOCK, &set, NULL), "sigprocmask");
    int fd = signalfd(-1, &set, SFD_CLOEXEC), ep = epoll_of(fd);
    say("ready");
    while (epoll_wait(ep, &event, 1, -1) < 0)
        ;
    must(read(fd, &found, sizeof found), "read");
    say("signalled");
}

static int listens(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    /* In the abstract namespace. */
    memcpy(name.sun_path + 1, path, strlen(path));
    must(bind(fd, (struct sockaddr *)&name, sizeof(sa_family_t) + 1 + strlen(path)), "bind");
    must(listen(fd, 16), "listen");
    return fd;
}

/* An event loop: timers, the first of which ticks if it is negative, and visitors. */
static void loop(const char *times, const char *path)
{
    long timers[8], count = 0, tick = 0, next = 0;
    for (; *times; times += *times == ',') {
        char *end;
        long each = strtol(times, &end, 10);
        if (each < 0)
            next = tick = -each;
        else
            timers[count++] = each;
        times = end;
    }
    int fd = listens(path), ep = epoll_of(fd);
    say("ready");
    for (;;) {
        int64_t passed = now() - began, wait = -1;
        if (tick && next <= passed) {
            say("tick");
            next = passed + tick;
        }
        if (tick)
            wait = next - passed;
        for (int i = 0; i < count; i++) {
            if (timers[i] >= 0 && timers[i] <= passed) {
                char what[32];
                snprintf(what, sizeof what, "timer%ld", timers[i]);
                say(what);
                timers[i] = -1;
            }
            if (timers[i] >= 0 && (wait < 0 || timers[i] - passed < wait))
                wait = timers[i] - passed;
        }
        struct epoll_event event;
        if (epoll_wait(ep, &event, 1, wait) == 1) {
            char byte;
            int visitor = accept(fd, NULL, NULL);
            if (recv(visitor, &byte, 1, 0) == 1 && send(visitor, &byte, 1, MSG_NOSIGNAL) == 1)
                say("visitor");
            close(visitor);
        }
    }
}

/* Sends more than fits, to somebody who has something else to do. */
static void sends(void)
{
    static char data[4 << 20];
    say("ready");
    ssize_t sent = send(0, data, sizeof data, 0);
    say(sent == sizeof data ? "all" : "part");
}

static void semaphore(void)
{
    int set = semget(IPC_PRIVATE, 1, 0600);
    struct sembuf down = {0, -1, 0};
    must(set, "semget");
    say("ready");
    /* It is removed with its last user, who has to be told of it by then. */
    char line[32];
    if (write(1, line, snprintf(line, sizeof line, "set %d\n", set)) < 0)
        _exit(3);
    for (;;) {
        int result = semop(set, &down, 1);
        say(result < 0 && errno == EIDRM ? "removed" : "returned");
        if (result < 0 && errno == EIDRM)
            break;
    }
}

static int waited(const char *kind, long ms)
{
    static int ep = -1;
    char byte;
    struct epoll_event event;
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    struct timeval limit = {ms / 1000, ms % 1000 * 1000};
    struct pollfd polled = {0, POLLIN, 0};
    fd_set set;
    sigset_t signals;
    FD_ZERO(&set);
    FD_SET(0, &set);
    if (is(kind, "poll"))
        return poll(&polled, 1, ms);
    if (is(kind, "ppoll"))
        return ppoll(&polled, 1, &time, NULL);
    if (is(kind, "select"))
        return select(1, &set, NULL, NULL, &limit);
    if (is(kind, "select0"))
        return select(0, NULL, NULL, NULL, &limit);
    if (is(kind, "pselect"))
        return pselect(1, &set, NULL, NULL, &time, NULL);
    if (is(kind, "epoll") || is(kind, "epollrest")) {
        if (ep < 0)
            ep = epoll_of(0);
        return epoll_wait(ep, &event, 1, ms);
    }
    if (is(kind, "recv")) {
        must(setsockopt(0, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "SO_RCVTIMEO");
        return recv(0, &byte, 1, MSG_PEEK);
    }
    if (is(kind, "accept")) {
        must(setsockopt(0, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "SO_RCVTIMEO");
        int fd = accept(0, NULL, NULL);
        if (fd >= 0)
            close(fd);
        return fd;
    }
    if (is(kind, "sigtimedwait")) {
        sigemptyset(&signals);
        sigaddset(&signals, SIGUSR1);
        must(sigprocmask(SIG_BLOCK, &signals, NULL), "sigprocmask");
        return sigtimedwait(&signals, NULL, &time);
    }
    fprintf(stderr, "no such kind: %s\n", kind);
    _exit(2);
}

int main(int count, char **words)
{
    const char *kind = words[1];
    long ms = atol(words[2]);
    began = now();
    if (is(kind, "loop") && count > 3)
        loop(words[2], words[3]);
    else if (is(kind, "thread"))
        thread_timer(ms);
    else if (is(kind, "signalfd"))
        signal_descriptor();
    else if (is(kind, "semop"))
        semaphore();
    else if (is(kind, "send"))
        sends();
    else if (is(kind, "ticks") || is(kind, "idle")) {
        /* Says what time it is again and again; or waits for nothing. */
        int ep = epoll_of(0);
        struct epoll_event event;
        say("ready");
        for (;;)
            if (epoll_wait(ep, &event, 1, is(kind, "idle") ? -1 : ms) == 0)
                say("tick");
    } else if (is(kind, "busy")) {
        say("ready");
        while (now() - began < ms)
            ;
        say("over");
    } else {
        int64_t until = began + ms;
        long left = ms;
        say("ready");
        for (;;) {
            int result = waited(kind, left);
            if (result >= 0 && !(result == 0 && !is(kind, "accept") && !is(kind, "recv"))) {
                char byte;
                say("event");
                if (!is(kind, "accept") && !is(kind, "sigtimedwait"))
                    must(read(0, &byte, 1), "read");
                until = now() + ms;
                left = ms;
            } else if (result == 0 || errno == EAGAIN) {
                say("over");
                break;
            } else if (errno != EINTR) {
                must(-1, kind);
            } else if (is(kind, "epollrest")) {
                left = until > now() ? until - now() : 0;
            }
        }
    }
    for (;;)
        pause();
}
