/*
 * One wait for a time, by each call that has one.
 *
 * Knows nothing of scripts.  A call that was interrupted is made again: with what is left of the
 * time, as careful programs do, or with the whole of it (`whole`), as others do.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>

struct wait {
    const char *kind;
    int64_t span, due; /* microseconds */
    int whole, again;
    int signal; /* one that this actor has for itself, blocked everywhere */
    int quiet;  /* a descriptor on which nothing ever comes */
};

static volatile sig_atomic_t alarmed;
static __thread volatile sig_atomic_t mine;

static int is(const char *text, const char *other) { return strcmp(text, other) == 0; }

static int64_t rest(const struct wait *w)
{
    int64_t left = w->whole ? w->span : w->due - now();
    return left > 0 ? left : 0;
}

static int milliseconds(int64_t span) { return (span + 999) / 1000; }

static struct timespec in_timespec(int64_t span)
{
    struct timespec t = {span / 1000000, span % 1000000 * 1000};
    return t;
}

/* When it is due, by another clock. */
static struct timespec by(clockid_t clock, const struct wait *w)
{
    struct timespec t;
    clock_gettime(clock, &t);
    int64_t at = t.tv_nsec + (w->due - now()) * 1000;
    t.tv_sec += at / 1000000000;
    t.tv_nsec = at % 1000000000;
    return t;
}

/* Whether the call has to be made again; `over` is how it says that the time is over. */
static int again(struct wait *w, long result, int over)
{
    if (result < 0 && errno != over && errno != EINTR)
        failed(w->kind);
    if (result < 0 && errno == EINTR)
        return ++w->again;
    if (result > 0)
        say("failed %s ready %ld\n", w->kind, result);
    return 0;
}

static int epoll_of(int fd)
{
    int ep = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    must(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e), "epoll_ctl");
    return ep;
}

static void by_poll(struct wait *w)
{
    struct pollfd polled = {w->quiet, POLLIN, 0};
    if (is(w->kind, "poll"))
        while (again(w, poll(&polled, 1, milliseconds(rest(w))), 0))
            ;
    else if (is(w->kind, "poll-nothing"))
        while (again(w, poll(NULL, 0, milliseconds(rest(w))), 0))
            ;
    else {
        /* The kernel writes the rest back: that is taken, unless the whole time is. */
        struct timespec t = in_timespec(rest(w));
        while (again(w, syscall(SYS_ppoll, &polled, 1, &t, NULL, 8), 0))
            if (w->whole)
                t = in_timespec(rest(w));
    }
}

static void by_select(struct wait *w)
{
    fd_set set, *reads = is(w->kind, "select-nothing") ? NULL : &set;
    struct timespec t = in_timespec(rest(w));
    struct timeval tv = {rest(w) / 1000000, rest(w) % 1000000};
    long result;
    do {
        FD_ZERO(&set);
        FD_SET(w->quiet, &set);
        if (w->whole && w->again) {
            t = in_timespec(rest(w));
            tv.tv_sec = rest(w) / 1000000, tv.tv_usec = rest(w) % 1000000;
        }
        if (is(w->kind, "pselect6"))
            result = syscall(SYS_pselect6, w->quiet + 1, &set, NULL, NULL, &t, NULL);
        else
#ifdef SYS_select
            result = syscall(SYS_select, w->quiet + 1, reads, NULL, NULL, &tv);
#else
            result = select(w->quiet + 1, reads, NULL, NULL, &tv);
#endif
    } while (again(w, result, 0));
}

static void by_epoll(struct wait *w)
{
    struct epoll_event event;
    int ep = epoll_of(w->quiet);
    long result;
    do {
        struct timespec t = in_timespec(rest(w));
        if (is(w->kind, "epoll_wait"))
            result = epoll_wait(ep, &event, 1, milliseconds(rest(w)));
        else if (is(w->kind, "epoll_pwait"))
            result = syscall(SYS_epoll_pwait, ep, &event, 1, milliseconds(rest(w)), NULL, 8);
        else
            result = syscall(SYS_epoll_pwait2, ep, &event, 1, &t, NULL, 8);
    } while (again(w, result, 0));
    close(ep);
}

static void sleeps(struct wait *w, clockid_t clock, int flags)
{
    struct timespec t = flags ? by(clock, w) : in_timespec(w->span), left;
    int result;
    while ((result = clock_nanosleep(clock, flags, &t, &left))) {
        errno = result;
        again(w, -1, 0);
        if (!flags && !w->whole)
            t = left;
    }
}

static void by_nanosleep(struct wait *w)
{
    struct timespec t = in_timespec(w->span), left;
    while (again(w, nanosleep(&t, &left), 0))
        if (!w->whole)
            t = left;
}

static void by_futex(struct wait *w)
{
    uint32_t word = 0;
    struct timespec t;
    if (is(w->kind, "futex"))
        do
            t = in_timespec(rest(w));
        while (again(w, syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &t, NULL, 0), ETIMEDOUT));
    else {
        int real = is(w->kind, "futex-real") ? FUTEX_CLOCK_REALTIME : 0;
        t = by(real ? CLOCK_REALTIME : CLOCK_MONOTONIC, w);
        while (again(w, syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE | real, 0, &t, NULL, ~0),
                     ETIMEDOUT))
            ;
    }
}

static void by_condition(struct wait *w, clockid_t clock)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    struct timespec t = by(clock, w);
    pthread_mutex_lock(&mutex);
    while (pthread_cond_clockwait(&condition, &mutex, clock, &t) != ETIMEDOUT)
        w->again++;
    pthread_mutex_unlock(&mutex);
}

static void by_semaphore(struct wait *w, clockid_t clock)
{
    sem_t semaphore;
    sem_init(&semaphore, 0, 0);
    struct timespec t = by(clock, w);
    while (again(w, sem_clockwait(&semaphore, clock, &t), ETIMEDOUT))
        ;
}

static void set_timeout(int fd, int64_t span)
{
    /* Zero would be for ever. */
    struct timeval tv = {span / 1000000, span < 1000 ? 1000 : span % 1000000};
    must(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), "SO_RCVTIMEO");
}

static void by_socket(struct wait *w)
{
    int pair[2];
    char byte;
    long result;
    if (is(w->kind, "accept-rcvtimeo")) {
        pair[0] = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
        pair[1] = -1;
        must(listen(pair[0], 1), "listen");
    } else
        must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "socketpair");
    set_timeout(pair[0], w->span);
    do {
        if (w->again && !w->whole)
            set_timeout(pair[0], rest(w));
        result = pair[1] < 0 ? accept(pair[0], NULL, NULL) : recv(pair[0], &byte, 1, 0);
    } while (again(w, result, EAGAIN));
    close(pair[0]);
    close(pair[1]);
}

static void by_timerfd(struct wait *w)
{
    struct itimerspec at = {.it_value = in_timespec(w->span)};
    int fd = must(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), "timerfd_create");
    struct pollfd polled = {fd, POLLIN, 0};
    struct epoll_event event;
    uint64_t count;
    int ep = epoll_of(fd);
    must(timerfd_settime(fd, 0, &at, NULL), "timerfd_settime");
    for (; is(w->kind, "timerfd-epoll") && epoll_wait(ep, &event, 1, -1) < 0; w->again++)
        ;
    for (; is(w->kind, "timerfd-poll") && poll(&polled, 1, -1) < 0; w->again++)
        ;
    while (read(fd, &count, sizeof count) < 0)
        w->again++;
    close(ep);
    close(fd);
}

static void noted(int number)
{
    (void)number;
    mine = 1;
}

static void noted_alarm(int number)
{
    (void)number;
    alarmed = 1;
}

/* Wait, with these signals let through, until a handler has said that it was called. */
static void suspend_until(struct wait *w, int number, volatile sig_atomic_t *flag)
{
    sigset_t inner;
    pthread_sigmask(SIG_SETMASK, NULL, &inner);
    sigdelset(&inner, number);
    while (!*flag) {
        struct pollfd polled = {w->quiet, POLLIN, 0};
        if (is(w->kind, "timer-thread-ppoll"))
            syscall(SYS_ppoll, &polled, 1, NULL, &inner, 8);
        else
            sigsuspend(&inner);
        w->again++;
    }
    *flag = 0;
}

static void by_timer(struct wait *w)
{
    int thread = strncmp(w->kind, "timer-thread", 12) == 0;
    struct sigevent told = {.sigev_notify = thread ? SIGEV_THREAD_ID : SIGEV_SIGNAL,
                            .sigev_signo = w->signal};
    struct itimerspec at = {.it_value = in_timespec(w->span)};
    timer_t timer;
    sigset_t one;
    told._sigev_un._tid = thread ? syscall(SYS_gettid) : 0;
    must(timer_create(CLOCK_MONOTONIC, &told, &timer), "timer_create");
    must(timer_settime(timer, 0, &at, NULL), "timer_settime");
    sigemptyset(&one);
    sigaddset(&one, w->signal);
    if (is(w->kind, "timer-sigwait") || is(w->kind, "timer-thread-sigwait"))
        while (sigwaitinfo(&one, NULL) < 0)
            w->again++;
    else
        suspend_until(w, w->signal, &mine);
    timer_delete(timer);
}

static void by_sigtimedwait(struct wait *w)
{
    struct timespec t;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, w->signal);
    do
        t = in_timespec(rest(w));
    while (again(w, sigtimedwait(&one, NULL, &t), EAGAIN));
}

static void by_queue(struct wait *w)
{
    struct mq_attr small = {.mq_maxmsg = 1, .mq_msgsize = 8};
    char name[64], data[8];
    snprintf(name, sizeof name, "/timefuzz-%d-%d", getpid(), w->signal);
    mqd_t queue = must(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &small), "mq_open");
    mq_unlink(name);
    struct timespec t = by(CLOCK_REALTIME, w);
    while (again(w, mq_timedreceive(queue, data, sizeof data, NULL, &t), ETIMEDOUT))
        ;
    mq_close(queue);
}

/* A process that sleeps, and ends or writes a byte. */
static void by_child(struct wait *w)
{
    int ends[2], status;
    char byte = 0;
    must(pipe2(ends, O_CLOEXEC), "pipe2");
    pid_t child = must(fork(), "fork");
    if (child == 0) {
        struct timespec t = in_timespec(w->span);
        while (nanosleep(&t, &t) < 0)
            ;
        _exit(write(ends[1], &byte, 1) != 1);
    }
    close(ends[1]);
    if (is(w->kind, "child-pipe"))
        while (read(ends[0], &byte, 1) < 0)
            w->again++;
    while (waitpid(child, &status, 0) < 0)
        w->again++;
    close(ends[0]);
}

static void wait_by(struct wait *w)
{
    const char *kind = w->kind;
    w->due = now() + w->span;
    w->again = 0;
    if (is(kind, "busy"))
        while (now() < w->due)
            ;
    else if (strncmp(kind, "poll", 4) == 0 || is(kind, "ppoll"))
        by_poll(w);
    else if (strncmp(kind, "select", 6) == 0 || is(kind, "pselect6"))
        by_select(w);
    else if (strncmp(kind, "epoll", 5) == 0)
        by_epoll(w);
    else if (is(kind, "nanosleep"))
        by_nanosleep(w);
    else if (is(kind, "sleep"))
        sleeps(w, CLOCK_MONOTONIC, 0);
    else if (is(kind, "sleep-real"))
        sleeps(w, CLOCK_REALTIME, 0);
    else if (is(kind, "sleep-until"))
        sleeps(w, CLOCK_MONOTONIC, TIMER_ABSTIME);
    else if (is(kind, "sleep-until-real"))
        sleeps(w, CLOCK_REALTIME, TIMER_ABSTIME);
    else if (strncmp(kind, "futex", 5) == 0)
        by_futex(w);
    else if (is(kind, "cond-mono"))
        by_condition(w, CLOCK_MONOTONIC);
    else if (is(kind, "cond-real"))
        by_condition(w, CLOCK_REALTIME);
    else if (is(kind, "sem-mono"))
        by_semaphore(w, CLOCK_MONOTONIC);
    else if (is(kind, "sem-real"))
        by_semaphore(w, CLOCK_REALTIME);
    else if (strstr(kind, "-rcvtimeo"))
        by_socket(w);
    else if (strncmp(kind, "timerfd", 7) == 0)
        by_timerfd(w);
    else if (strncmp(kind, "timer-", 6) == 0)
        by_timer(w);
    else if (is(kind, "sigtimedwait"))
        by_sigtimedwait(w);
    else if (is(kind, "mq_timedreceive"))
        by_queue(w);
    else if (strncmp(kind, "child-", 6) == 0)
        by_child(w);
    else if (is(kind, "itimer") || is(kind, "alarm")) {
        struct itimerval at = {.it_value = {w->span / 1000000, w->span % 1000000}};
        if (is(kind, "alarm"))
            alarm(w->span / 1000000);
        else
            setitimer(ITIMER_REAL, &at, NULL);
        suspend_until(w, SIGALRM, &alarmed);
    } else {
        errno = 0;
        failed(kind);
    }
}
