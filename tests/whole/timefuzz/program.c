/*
 * A program of the fuzzer of time: program SCRIPT.
 *
 * The script is a file of lines; those that are not named here are for whoever runs the program.
 *
 *   process                         the actors that follow are in one more process
 *   steps NAME                      a thread that waits again and again:
 *     wait KIND MS [whole]            see wait_by; with `whole` it waits anew when interrupted
 *   tick NAME KIND MS [whole]       a thread that does nothing but wait for the same time
 *   serve NAME tcp|unix HOW KIND    a server; HOW: thread, fork or inline; KIND: how it waits
 *   loop NAME KIND [whole]          a thread with an event loop, in which are:
 *     every MS                        a tick that does nothing
 *     after MS [MS ...]               timers, one after the other
 *     timerfd MS
 *     listen tcp|unix
 *     signalfd                        for SIGTERM
 *
 * The first actor of a process is its first thread, the only one that handles SIGUSR1.
 */
#include "events.h"
#include "waits.h"
#include "loop.h"

enum { LINES = 256, ACTORS = 16 };

static char script[1 << 16], *lines[LINES];
static int line_count, process_number, process_count;

struct actor {
    char what[16], name[32], words[3][32];
    char **begin, **end;
    int signal;
    pthread_t thread;
};

static int quiet(void)
{
    int ends[2];
    must(pipe2(ends, O_CLOEXEC), "pipe2");
    return ends[0];
}

static void steps(struct actor *a, int fd)
{
    char id[64], kind[32], whole[8];
    int number = 0;
    long ms;
    for (char **line = a->begin; line < a->end; line++) {
        whole[0] = 0;
        if (sscanf(*line, " wait %31s %ld %7s", kind, &ms, whole) < 2)
            failed(*line);
        struct wait w = {kind, ms * 1000LL, 0, whole[0] != 0, 0, a->signal, fd};
        wait_by(&w);
        snprintf(id, sizeof id, "%s.%d", a->name, number++);
        tell(id, 's', kind, w.due, w.again, w.whole ? w.span : 0);
    }
}

static void tick(struct actor *a, int fd)
{
    struct wait w = {a->words[0],   atol(a->words[1]) * 1000LL, 0, a->words[2][0] != 0, 0,
                     a->signal, fd};
    char id[64];
    for (int number = 0;; number++) {
        wait_by(&w);
        snprintf(id, sizeof id, "%s.turn%d", a->name, number);
        tell_tick(id, w.kind, w.due, w.again, w.whole ? w.span : 0);
    }
}

static void loop(struct actor *a)
{
    static __thread struct loop l;
    char id[64], word[32];
    int number = 0;
    long ms;
    loop_make(&l);
    l.name = a->name;
    l.kind = a->words[0];
    l.whole = a->words[1][0] != 0;
    for (char **line = a->begin; line < a->end; line++)
        l.ticks += sscanf(*line, " every %ld", &ms) == 1;
    for (char **line = a->begin; line < a->end; line++, number++) {
        if (sscanf(*line, " every %ld", &ms) == 1) {
            snprintf(id, sizeof id, "%s.turn%d", a->name, number);
            timer_of(&l, id, ms * 1000LL, 't')->every = ms * 1000LL;
        } else if (sscanf(*line, " timerfd %ld", &ms) == 1) {
            struct itimerspec at = {.it_value = in_timespec(ms * 1000LL)};
            int fd = must(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), "timerfd_create");
            watch(&l, fd, 't', now() + ms * 1000LL);
            must(timerfd_settime(fd, 0, &at, NULL), "timerfd_settime");
        } else if (sscanf(*line, " listen %31s", word) == 1) {
            l.tcp = is(word, "tcp");
            watch(&l, listens(a->name, l.tcp), 'l', 0);
        } else if (strstr(*line, "signalfd")) {
            sigset_t one;
            sigemptyset(&one);
            sigaddset(&one, SIGTERM);
            watch(&l, must(signalfd(-1, &one, SFD_CLOEXEC), "signalfd"), 's', 0);
        } else {
            /* "after" and its numbers. */
            char *rest = strstr(*line, "after"), *end;
            struct timer *t = NULL;
            if (!rest)
                failed(*line);
            snprintf(id, sizeof id, "%s.after%d.", a->name, number);
            for (rest += 5; (ms = strtol(rest, &end, 10)), end != rest; rest = end)
                if (!t)
                    t = timer_of(&l, id, ms * 1000LL, l.ticks ? 'h' : 's');
                else if (t->count < SPANS)
                    t->spans[t->count++] = ms * 1000LL;
        }
    }
    loop_run(&l);
}

static void *act(void *argument)
{
    struct actor *a = argument;
    int fd = quiet();
    if (is(a->what, "steps"))
        steps(a, fd);
    else if (is(a->what, "tick"))
        tick(a, fd);
    else if (is(a->what, "loop"))
        loop(a);
    else
        serve(a->name, is(a->words[0], "tcp"), a->words[1], a->words[2], a->signal, fd);
    return NULL;
}

static void on_usr1(int number, siginfo_t *info, void *context)
{
    char id[32];
    int error = errno;
    (void)number, (void)context;
    snprintf(id, sizeof id, "p%d.usr1.%d", process_number, info->si_value.sival_int);
    tell(id, 's', "usr1", 0, 0, 0);
    errno = error;
}

static void handle_signals(void)
{
    struct sigaction usr1 = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO};
    struct sigaction timed = {.sa_handler = noted}, alarms = {.sa_handler = noted_alarm};
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGALRM);
    for (int number = SIGRTMIN + 1; number <= SIGRTMIN + ACTORS; number++) {
        sigaddset(&blocked, number);
        sigaction(number, &timed, NULL);
    }
    sigaction(SIGALRM, &alarms, NULL);
    sigaction(SIGUSR1, &usr1, NULL);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
}

/* All actors of one process, until those have ended that do. */
static void run_process(char **begin, char **end)
{
    static struct actor actors[ACTORS];
    struct actor *last = actors;
    sigset_t usr1;
    say("process %d %d\n", process_number, getpid());
    for (char **line = begin; line < end; line++) {
        struct actor *a = last;
        if (sscanf(*line, "%15s %31s %31s %31s %31s", a->what, a->name, a->words[0], a->words[1],
                   a->words[2]) < 2 ||
            !(is(a->what, "steps") || is(a->what, "tick") || is(a->what, "loop") ||
              is(a->what, "serve")))
            continue;
        a->signal = SIGRTMIN + 1 + (a - actors);
        a->begin = line + 1;
        for (a->end = a->begin; a->end < end && (*a->end)[0] == ' '; a->end++)
            ;
        if (++last == actors + ACTORS)
            failed("too many actors");
    }
    for (struct actor *a = actors + 1; a < last; a++)
        if (pthread_create(&a->thread, NULL, act, a))
            failed("pthread_create");
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
    act(actors);
    for (struct actor *a = actors + 1; a < last; a++)
        pthread_join(a->thread, NULL);
}

int main(int count, char **words)
{
    int fd = must(open(words[count - 1], O_RDONLY | O_CLOEXEC), "script");
    must(read(fd, script, sizeof script - 1), "script");
    close(fd);
    for (char *line = strtok(script, "\n"); line && line_count < LINES; line = strtok(NULL, "\n"))
        lines[line_count++] = line;
    handle_signals();
    for (int i = 0; i < line_count; i++)
        process_count += is(lines[i], "process");
    for (int i = 0, seen = 0; i < line_count; i++) {
        int end = i + 1;
        if (!is(lines[i], "process"))
            continue;
        while (end < line_count && !is(lines[end], "process"))
            end++;
        process_number = seen++;
        /* The last one is this process. */
        if (seen == process_count || fork() == 0) {
            run_process(lines + i + 1, lines + end);
            return 0;
        }
    }
    failed("no process");
}
