/*
 * One thread that waits in one way: waits KIND [NUMBER] [PATH].
 *
 * What it waits for is its standard input, unless the kind says otherwise.  Writes a line before
 * it waits and "done" after it, and then pauses.  The calls are made as the C library makes them
 * where that matters for a restart, and by their numbers otherwise.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long number = -1;
static const char *path = "";
static uint32_t word;

static void say(const char *text)
{
    if (write(1, text, strlen(text)) < 0)
        _exit(3);
}

static void must(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        _exit(2);
    }
}

static struct timespec span(void)
{
    struct timespec t = {number / 1000, number % 1000 * 1000000};
    return t;
}

static struct timespec until(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_sec += number / 1000;
    t.tv_nsec += number % 1000 * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

static int epoll_of(int fd, uint32_t events)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = events, .data.fd = fd};
    must(ep, "epoll_create1");
    must(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e), "epoll_ctl");
    return ep;
}

static void *wait_on_word(void *unused)
{
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    say("done\n");
    for (;;)
        pause();
    return unused;
}

static void *read_in_thread(void *unused)
{
    char c;
    if (read(0, &c, 1) == 1)
        say("done\n");
    for (;;)
        pause();
    return unused;
}

static void *own_table(void *unused)
{
    must(unshare(CLONE_FILES), "unshare");
    return read_in_thread(unused);
}

static void handled(int signal)
{
    (void)signal;
    say("signalled\n");
    _exit(0);
}

static void child_line(pid_t child)
{
    char line[32];
    snprintf(line, sizeof line, "%d\n", child);
    say(line);
}

/* A request for the standard input in an io_uring, waited for in io_uring_enter. */
static void uring(void)
{
    struct io_uring_params p = {0};
    int ring = syscall(SYS_io_uring_setup, 4, &p);
    must(ring, "io_uring_setup");
    char *sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entries =
        mmap(NULL, p.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    if (sq == MAP_FAILED || entries == MAP_FAILED)
        must(-1, "mmap");
    memset(entries, 0, sizeof *entries);
    entries->opcode = IORING_OP_POLL_ADD;
    entries->fd = 0;
    entries->poll32_events = POLLIN;
    *(uint32_t *)(sq + p.sq_off.array) = 0;
    __atomic_store_n((uint32_t *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
    must(syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0), "submit");
    while (syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        if (errno != EINTR)
            must(-1, "io_uring_enter");
}

static int is(const char *kind, const char *name) { return strcmp(kind, name) == 0; }

static void wait_by(const char *kind)
{
    char data[65536] = {0};
    struct iovec io = {data, 1};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1};
    struct mmsghdr many = {.msg_hdr = message};
    struct pollfd polled[2] = {{-1, POLLIN, 0}, {0, POLLIN, 0}};
    struct timespec t = span(), *timed = number < 0 ? NULL : &t;
    struct timeval tv = {number / 1000, number % 1000 * 1000};
    struct epoll_event event;
    fd_set set;
    FD_ZERO(&set);
    FD_SET(0, &set);
    int status;

    if (is(kind, "read"))
        read(0, data, 8);
    else if (is(kind, "readbig"))
        read(0, data, sizeof data);
    else if (is(kind, "readv"))
        readv(0, &io, 1);
    else if (is(kind, "recvfrom"))
        recvfrom(0, data, 1, 0, NULL, NULL);
    else if (is(kind, "recvmsg"))
        recvmsg(0, &message, 0);
    else if (is(kind, "recvmmsg"))
        recvmmsg(0, &many, 1, 0, NULL);
    else if (is(kind, "accept"))
        accept(0, NULL, NULL);
    else if (is(kind, "accept4"))
        syscall(SYS_accept4, 0, NULL, NULL, 0);
    else if (is(kind, "write"))
        write(0, data, sizeof data);
    else if (is(kind, "writev")) {
        io.iov_len = sizeof data;
        writev(0, &io, 1);
    } else if (is(kind, "sendto"))
        send(0, data, sizeof data, 0);
    else if (is(kind, "sendmsg")) {
        io.iov_len = sizeof data;
        sendmsg(0, &message, 0);
    } else if (is(kind, "connect")) {
        struct sockaddr_storage name;
        socklen_t length = sizeof name;
        /* The standard input is bound to where somebody listens, at the same time. */
        must(getsockname(0, (struct sockaddr *)&name, &length), "getsockname");
        int fd = socket(name.ss_family, SOCK_STREAM, 0);
        connect(fd, (struct sockaddr *)&name, length);
    } else if (is(kind, "poll"))
        poll(polled, 2, number);
#ifdef SYS_poll
    else if (is(kind, "rawpoll"))
        syscall(SYS_poll, polled, 2, number);
#endif
    else if (is(kind, "ppoll"))
        ppoll(polled, 2, timed, NULL);
#ifdef SYS_select
    else if (is(kind, "select"))
        syscall(SYS_select, 1, &set, NULL, NULL, number < 0 ? NULL : &tv);
#else
    else if (is(kind, "select"))
        select(1, &set, NULL, NULL, number < 0 ? NULL : &tv);
#endif
    else if (is(kind, "pselect"))
        syscall(SYS_pselect6, 1, &set, NULL, NULL, timed, NULL);
    else if (is(kind, "epoll") || is(kind, "epollet")) {
        int ep = epoll_of(0, EPOLLIN | (is(kind, "epollet") ? EPOLLET : 0));
        while (epoll_wait(ep, &event, 1, number) < 0)
            ;
    } else if (is(kind, "edges")) {
        /* Told of each arrival once, and never reads any of it. */
        int ep = epoll_of(0, EPOLLIN | EPOLLET);
        for (;;)
            if (epoll_wait(ep, &event, 1, number) == 1)
                say("event\n");
    } else if (is(kind, "levels")) {
        /* Told again and again of what it never reads. */
        int ep = epoll_of(0, EPOLLIN);
        for (;;)
            epoll_wait(ep, &event, 1, number);
    } else if (is(kind, "closes")) {
        recvfrom(0, data, 1, 0, NULL, NULL);
        close(0);
    } else if (is(kind, "epoll_pwait")) {
        int ep = epoll_of(0, EPOLLIN);
        while (syscall(SYS_epoll_pwait, ep, &event, 1, number, NULL, 8) < 0)
            ;
    } else if (is(kind, "epoll_pwait2")) {
        int ep = epoll_of(0, EPOLLIN);
        while (syscall(SYS_epoll_pwait2, ep, &event, 1, timed, NULL, 8) < 0)
            ;
    } else if (is(kind, "nested")) {
        int ep = epoll_of(0, EPOLLIN);
        for (long depth = 0; depth < number; depth++)
            ep = epoll_of(ep, EPOLLIN);
        while (epoll_wait(ep, &event, 1, -1) < 0)
            ;
    } else if (is(kind, "futex"))
        syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, timed, NULL, 0);
    else if (is(kind, "futexabs")) {
        t = until(CLOCK_MONOTONIC);
        syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, &t, NULL, ~0);
    } else if (is(kind, "futexreal")) {
        t = until(CLOCK_REALTIME);
        syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 0, &t, NULL,
                ~0);
    } else if (is(kind, "futexfile")) {
        int fd = open(path, O_RDWR);
        must(fd, path);
        uint32_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        syscall(SYS_futex, shared, FUTEX_WAIT, 0, NULL, NULL, 0);
    }
#ifdef SYS_nanosleep
    else if (is(kind, "nanosleep"))
        while (syscall(SYS_nanosleep, &t, &t) < 0)
            ;
#endif
    else if (is(kind, "sleep"))
        clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
    else if (is(kind, "sleepagain"))
        while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t))
            ;
    else if (is(kind, "sleepuntil")) {
        t = until(CLOCK_MONOTONIC);
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    } else if (is(kind, "sleepbyday")) {
        t = until(CLOCK_REALTIME);
        clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, NULL);
    } else if (is(kind, "pause"))
        pause();
    else if (is(kind, "sigtimedwait")) {
        sigset_t signals;
        sigemptyset(&signals);
        sigaddset(&signals, SIGUSR1);
        sigprocmask(SIG_BLOCK, &signals, NULL);
        while (sigtimedwait(&signals, NULL, timed) < 0)
            ;
    } else if (is(kind, "sigsuspend")) {
        sigset_t signals;
        sigemptyset(&signals);
        sigsuspend(&signals);
    } else if (is(kind, "io_uring"))
        uring();
    else if (is(kind, "flock")) {
        int fd = open(path, O_RDWR);
        must(fd, path);
        flock(fd, LOCK_EX);
    } else if (is(kind, "msgrcv")) {
        int queue = msgget(IPC_PRIVATE, 0600);
        must(queue, "msgget");
        /* It goes with the last process that uses it, which is never: removed while waited on. */
        struct {
            long type;
            char text[8];
        } received;
        if (fork() == 0) {
            read(0, data, 1);
            msgctl(queue, IPC_RMID, NULL);
            _exit(0);
        }
        msgrcv(queue, &received, 8, 0, 0);
    } else if (is(kind, "wait4") || is(kind, "waitid") || is(kind, "waitpidfd")) {
        pid_t child = fork();
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;)
                pause();
        }
        child_line(child);
        siginfo_t info;
        if (is(kind, "wait4"))
            waitpid(number == 1 ? child : -1, &status, 0);
        else if (is(kind, "waitid"))
            waitid(P_PID, child, &info, WEXITED);
        else
            waitid(P_PIDFD, syscall(SYS_pidfd_open, child, 0), &info, WEXITED);
    } else if (is(kind, "waitgroup")) {
        /* One in a group of its own, and one in ours, which is not waited for. */
        for (int i = 0; i < 2; i++) {
            pid_t child = fork();
            if (child == 0) {
                if (i == 0)
                    setpgid(0, 0);
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                    pause();
            }
            if (i == 0)
                setpgid(child, child), number = child;
            child_line(child);
        }
        waitpid(-number, &status, 0);
    } else {
        fprintf(stderr, "no such kind: %s\n", kind);
        _exit(2);
    }
}

int main(int count, char **words)
{
    pthread_t thread;
    const char *kind = words[1];
    if (count > 2)
        number = atol(words[2]);
    if (count > 3)
        path = words[3];
    if (is(kind, "compute")) {
        say("ready\n");
        for (volatile long i = 0;; i++)
            ;
    } else if (is(kind, "disk")) {
        static char block[1 << 16];
        int fd = open(path, O_RDWR | O_CREAT, 0600);
        must(fd, path);
        say("ready\n");
        for (;;)
            must(pwrite(fd, block, sizeof block, 0), "pwrite");
    } else if (is(kind, "naps")) {
        struct timespec t = {0, 1000000};
        say("ready\n");
        for (;;)
            nanosleep(&t, NULL);
    } else if (is(kind, "leader")) {
        /* The first thread ends; another one goes on. */
        pthread_create(&thread, NULL, read_in_thread, NULL);
        say("ready\n");
        pthread_exit(NULL);
    } else if (is(kind, "owntable")) {
        pthread_create(&thread, NULL, own_table, NULL);
    } else if (is(kind, "handover")) {
        /* One thread reads, and wakes the other. */
        pthread_create(&thread, NULL, wait_on_word, NULL);
        say("ready\n");
        char c;
        if (read(0, &c, 1) == 1) {
            word = 1;
            syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
        }
        for (;;)
            pause();
    } else if (is(kind, "threads")) {
        for (long i = 0; i < number; i++)
            pthread_create(&thread, NULL, wait_on_word, NULL);
    } else if (is(kind, "undumpable")) {
        prctl(PR_SET_DUMPABLE, 0);
        kind = "read";
    } else if (is(kind, "handler")) {
        signal(SIGTERM, handled);
        kind = "read";
    } else if (is(kind, "tracer")) {
        must(ptrace(PTRACE_SEIZE, (pid_t)number, NULL, NULL), "PTRACE_SEIZE");
        kind = "pause";
    } else if (is(kind, "inner")) {
        /* A read in namespaces of its own, its parent waiting for it outside of them. */
        must(unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC), "unshare");
        pid_t child = fork();
        if (child) {
            int status;
            waitpid(child, &status, 0);
            _exit(0);
        }
        kind = "wait4";
        if (number == 0)
            kind = "read";
    } else if (is(kind, "zombiechild")) {
        /* A child whose first thread has ended, though it has not. */
        pid_t child = fork();
        if (child == 0) {
            char c;
            read(0, &c, 1);
            pthread_create(&thread, NULL, read_in_thread, NULL);
            pthread_exit(NULL);
        }
        int status;
        child_line(child);
        waitpid(child, &status, 0);
        say("done\n");
        _exit(0);
    }
    if (is(kind, "owntable") || is(kind, "threads"))
        kind = "pause";
    say("ready\n");
    wait_by(kind);
    say("done\n");
    for (;;)
        pause();
}
