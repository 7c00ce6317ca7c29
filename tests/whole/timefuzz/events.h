/*
 * What the programs of the fuzzer of time say: one line for each event, with the time that it was
 * due and the time that it came, both of CLOCK_MONOTONIC in microseconds.
 *
 * Knows nothing of waits and loops.  A line is one write, so those of several threads and
 * processes never mix.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char line[256];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    if (write(1, line, length) != length)
        _exit(3);
}

static void failed(const char *what)
{
    say("failed %s errno %d\n", what, errno);
    _exit(2);
}

static long must(long result, const char *what)
{
    if (result < 0)
        failed(what);
    return result;
}

/*
 * sort: 's' what can be seen from outside, 'h' what hides behind a tick, 't' a turn of a tick.
 * again: how often the call was interrupted; extra: by how much each of these may delay it.
 */
static void tell(const char *id, char sort, const char *kind, int64_t due, int again, int64_t extra)
{
    say("event %s %c %s %lld %lld %d %lld\n", id, sort, kind, (long long)due, (long long)now(),
        again, (long long)extra);
}

/* A turn of a tick counts only when it came at a wrong time. */
static void tell_tick(const char *id, const char *kind, int64_t due, int again, int64_t extra)
{
    int64_t late = now() - due;
    if (late > 250000 || late < -20000)
        tell(id, 't', kind, due, again, extra);
}
