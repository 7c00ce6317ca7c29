/* A service on sd-event: it feeds the watchdog of its manager, has a timer, and handles TERM. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#define PERIOD 11000000

static int ticks, terms;

static int onTime(sd_event_source *source, uint64_t due, void *nothing)
{
    printf("eleven %d\n", ++ticks);
    sd_event_source_set_time(source, due + PERIOD);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int onTerm(sd_event_source *source, const struct signalfd_siginfo *info, void *nothing)
{
    printf("term %d\n", ++terms);
    return 0;
}

int main(void)
{
    sigset_t terminate;
    sd_event *loop;
    uint64_t now;

    setvbuf(stdout, NULL, _IOLBF, 0);
    sigemptyset(&terminate);
    sigaddset(&terminate, SIGTERM);
    sigprocmask(SIG_BLOCK, &terminate, NULL);
    if (sd_event_default(&loop) < 0 || sd_event_set_watchdog(loop, 1) < 1)
        return EXIT_FAILURE;
    sd_event_now(loop, CLOCK_MONOTONIC, &now);
    printf("eleven 0\n");
    if (sd_event_add_time(loop, NULL, CLOCK_MONOTONIC, now + PERIOD, 1, onTime, NULL) < 0)
        return EXIT_FAILURE;
    if (sd_event_add_signal(loop, NULL, SIGTERM, onTerm, NULL) < 0)
        return EXIT_FAILURE;
    sd_notify(0, "READY=1");
    return sd_event_loop(loop) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
