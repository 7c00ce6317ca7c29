/*
 * An event loop with a heap of timers, as frameworks have them, and a server that blocks.
 *
 * A request is a line "request ID SENT DELAY LATER": answered after DELAY milliseconds, and, with
 * LATER, followed by a job that long after the answer.
 */
#include <netinet/in.h>
#include <sys/signalfd.h>

enum { TIMERS = 64, DESCRIPTORS = 32, SPANS = 8 };

struct timer {
    char id[64];
    int64_t due; /* microseconds; 0: free */
    int64_t every;
    int64_t spans[SPANS]; /* what follows, one after the other */
    int at, count, answer; /* answer: the connection, or -1 */
    long later;
    char sort;
};

struct loop {
    const char *name, *kind;
    int whole, ticks;
    int tcp; /* somebody outside can see who waits */
    struct timer timers[TIMERS];
    struct pollfd polled[DESCRIPTORS]; /* fd -1: free */
    char role[DESCRIPTORS];            /* of each: l(istens), c(onnection), s(ignals), t(imer) */
    int64_t due[DESCRIPTORS];          /* of timers */
    int ep, again;
    int64_t extra;
};

struct request {
    char id[32];
    long long sent;
    long delay, later;
};

/* Read one request; 0 at the end. */
static int request_from(int fd, struct request *r)
{
    char line[128];
    size_t length = 0;
    while (length < sizeof line - 1) {
        ssize_t got = read(fd, line + length, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        if (line[length++] == '\n')
            break;
    }
    line[length] = 0;
    if (sscanf(line, "request %31s %lld %ld %ld", r->id, &r->sent, &r->delay, &r->later) != 4)
        failed("request");
    return 1;
}

static void answer_to(int fd, const char *id)
{
    char line[96];
    int length = snprintf(line, sizeof line, "answer %s %lld\n", id, (long long)now());
    if (send(fd, line, length, MSG_NOSIGNAL) != length)
        say("failed answer %s errno %d\n", id, errno);
}

/* Listen, and say where. */
static int listens(const char *name, int tcp)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    socklen_t size = tcp ? sizeof in : sizeof(sa_family_t);
    struct sockaddr *where = tcp ? (struct sockaddr *)&in : (struct sockaddr *)&un;
    int fd = must(socket(where->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    /* Without a name the kernel makes one up. */
    must(bind(fd, where, size), "bind");
    must(listen(fd, 64), "listen");
    size = tcp ? sizeof in : sizeof un;
    must(getsockname(fd, where, &size), "getsockname");
    if (tcp)
        say("at %s tcp %d\n", name, ntohs(in.sin_port));
    else
        say("at %s unix %.*s\n", name, (int)(size - sizeof(sa_family_t) - 1), un.sun_path + 1);
    return fd;
}

static void watch(struct loop *l, int fd, char role, int64_t due)
{
    for (int i = 0; i < DESCRIPTORS; i++)
        if (l->polled[i].fd < 0) {
            struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
            l->polled[i] = (struct pollfd){fd, POLLIN, 0};
            l->role[i] = role;
            l->due[i] = due;
            must(epoll_ctl(l->ep, EPOLL_CTL_ADD, fd, &e), "epoll_ctl");
            return;
        }
    failed("too many descriptors");
}

static struct timer *timer_of(struct loop *l, const char *id, int64_t span, char sort)
{
    for (struct timer *t = l->timers; t < l->timers + TIMERS; t++)
        if (!t->due) {
            *t = (struct timer){.due = now() + span, .answer = -1, .sort = sort};
            snprintf(t->id, sizeof t->id, "%s", id);
            return t;
        }
    failed("too many timers");
    return NULL;
}

static void loop_make(struct loop *l)
{
    memset(l->timers, 0, sizeof l->timers);
    for (int i = 0; i < DESCRIPTORS; i++)
        l->polled[i].fd = -1;
    l->ep = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
}

/* One wait, by whichever call; afterwards `revents` says what is ready. */
static void loop_wait(struct loop *l, int64_t span)
{
    struct epoll_event events[DESCRIPTORS];
    const char *kind = l->kind;
    long count;
    for (int i = 0; i < DESCRIPTORS; i++)
        l->polled[i].revents = 0;
    do {
        struct timespec t = in_timespec(span), *timed = span < 0 ? NULL : &t;
        struct timeval tv = {span / 1000000, span % 1000000};
        int ms = span < 0 ? -1 : milliseconds(span);
        fd_set set;
        FD_ZERO(&set);
        for (int i = 0; i < DESCRIPTORS; i++)
            if (l->polled[i].fd >= 0)
                FD_SET(l->polled[i].fd, &set);
        if (is(kind, "poll"))
            count = poll(l->polled, DESCRIPTORS, ms);
        else if (is(kind, "ppoll"))
            count = ppoll(l->polled, DESCRIPTORS, timed, NULL);
        else if (is(kind, "select"))
            count = select(FD_SETSIZE, &set, NULL, NULL, span < 0 ? NULL : &tv);
        else if (is(kind, "pselect6"))
            count = pselect(FD_SETSIZE, &set, NULL, NULL, timed, NULL);
        else if (is(kind, "epoll_pwait2"))
            count = syscall(SYS_epoll_pwait2, l->ep, events, DESCRIPTORS, timed, NULL, 8);
        else
            count = epoll_wait(l->ep, events, DESCRIPTORS, ms);
        if (count < 0 && errno != EINTR)
            failed(kind);
        if (count < 0)
            l->again++;
        if (count >= 0 && strstr(kind, "select"))
            for (int i = 0; i < DESCRIPTORS; i++)
                if (l->polled[i].fd >= 0 && FD_ISSET(l->polled[i].fd, &set))
                    l->polled[i].revents = POLLIN;
        if (count > 0 && kind[0] == 'e')
            for (long i = 0; i < count; i++)
                l->polled[events[i].data.u32].revents = POLLIN;
    } while (count < 0 && l->whole);
}

static void loop_fire(struct loop *l, struct timer *t)
{
    char id[96];
    if (t->every) {
        tell_tick(t->id, l->kind, t->due, l->again, l->extra);
        t->due = now() + t->every;
        return;
    }
    snprintf(id, sizeof id, "%.64s%d", t->id, t->at);
    tell(t->answer < 0 ? id : t->id, t->sort, l->kind, t->due, l->again, l->extra);
    if (t->answer >= 0) {
        answer_to(l->polled[t->answer].fd, t->id + strlen(l->name) + 1);
        l->polled[t->answer].events = POLLIN;
        if (t->later) {
            snprintf(id, sizeof id, "%.64s.job", t->id);
            timer_of(l, id, t->later * 1000LL, l->ticks ? 'h' : 's');
        }
        t->due = 0;
    } else {
        /* Counted from now on, as most programs do. */
        t->due = t->at < t->count ? now() + t->spans[t->at] : 0;
        t->at++;
    }
}

static void loop_ready(struct loop *l, int i)
{
    struct request r;
    struct signalfd_siginfo info;
    uint64_t turns;
    char id[64];
    int fd = l->polled[i].fd;
    if (l->role[i] == 'l')
        watch(l, must(accept4(fd, NULL, NULL, SOCK_CLOEXEC), "accept4"), 'c', 0);
    else if (l->role[i] == 's') {
        must(read(fd, &info, sizeof info), "signalfd");
        snprintf(id, sizeof id, "%s.term.%d", l->name, info.ssi_int);
        tell(id, 's', "signalfd", 0, 0, 0);
    } else if (l->role[i] == 't') {
        must(read(fd, &turns, sizeof turns), "timerfd");
        snprintf(id, sizeof id, "%s.timerfd%d", l->name, i);
        tell(id, 's', "timerfd-loop", l->due[i], 0, 0);
        must(epoll_ctl(l->ep, EPOLL_CTL_DEL, fd, NULL), "epoll_ctl");
        l->polled[i].fd = -1;
        close(fd);
    } else if (request_from(fd, &r)) {
        /* "v0.1.ask": its answer and its job are named after it. */
        snprintf(id, sizeof id, "%s.%s.ask", l->name, r.id);
        tell(id, 's', l->kind, r.sent, 0, 0);
        snprintf(id, sizeof id, "%s.%s", l->name, r.id);
        struct timer *t = timer_of(l, id, r.delay * 1000LL, l->ticks && !l->tcp ? 'h' : 's');
        t->answer = i;
        t->later = r.later;
    } else {
        must(epoll_ctl(l->ep, EPOLL_CTL_DEL, fd, NULL), "epoll_ctl");
        l->polled[i].fd = -1;
        close(fd);
    }
}

static void loop_run(struct loop *l)
{
    for (;;) {
        int64_t next = 0, span;
        for (struct timer *t = l->timers; t < l->timers + TIMERS; t++)
            if (t->due && (!next || t->due < next))
                next = t->due;
        span = next ? next - now() : -1;
        if (next && span < 0)
            span = 0;
        l->extra = l->whole ? span : 0;
        loop_wait(l, span);
        for (int i = 0; i < DESCRIPTORS; i++)
            if (l->polled[i].fd >= 0 && l->polled[i].revents)
                loop_ready(l, i);
        for (struct timer *t = l->timers; t < l->timers + TIMERS; t++)
            if (t->due && t->due <= now())
                loop_fire(l, t);
    }
}

struct served {
    const char *name, *kind;
    int fd, signal, quiet;
};

/* All requests of one connection, one after the other. */
static void *serve_one(void *argument)
{
    struct served *s = argument;
    struct request r;
    char id[64];
    while (request_from(s->fd, &r)) {
        struct wait w = {s->kind, r.delay * 1000LL, 0, 0, 0, s->signal, s->quiet};
        snprintf(id, sizeof id, "%s.%s.ask", s->name, r.id);
        tell(id, 's', "recv", r.sent, 0, 0);
        wait_by(&w);
        snprintf(id, sizeof id, "%s.%s", s->name, r.id);
        tell(id, 's', s->kind, w.due, w.again, 0);
        answer_to(s->fd, r.id);
    }
    close(s->fd);
    free(s);
    return NULL;
}

static void serve(const char *name, int tcp, const char *how, const char *kind, int signal, int quiet)
{
    int fd = listens(name, tcp);
    for (;;) {
        struct served *s = malloc(sizeof *s);
        pthread_t thread;
        *s = (struct served){name, kind, accept4(fd, NULL, NULL, SOCK_CLOEXEC), signal, quiet};
        if (s->fd < 0 && errno == EINTR) {
            free(s);
            continue;
        }
        must(s->fd, "accept4");
        if (is(how, "thread"))
            pthread_create(&thread, NULL, serve_one, s);
        else if (is(how, "inline"))
            serve_one(s);
        else if (must(fork(), "fork") == 0) {
            serve_one(s);
            _exit(0);
        } else {
            close(s->fd);
            free(s);
        }
    }
}
