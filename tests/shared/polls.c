/* Threads that poll the same descriptor many times over: polls THREADS ENTRIES same|different */

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int entries, differ;

static void *wait_(void *which)
{
    struct pollfd *table = calloc(entries, sizeof *table);
    for (int i = 0; i < entries; i++) {
        table[i].fd = 0;
        table[i].events = POLLIN;
    }
    if (differ)
        table[(long)which].events |= POLLPRI;
    poll(table, entries, -1);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_attr_t small;
    int threads = atoi(argv[1]);
    entries = atoi(argv[2]);
    differ = !strcmp(argv[3], "different");
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    for (long i = 1; i < threads; i++) {
        pthread_t one;
        if (pthread_create(&one, &small, wait_, (void *)i))
            return 1;
    }
    puts("ready");
    fflush(stdout);
    wait_((void *)0);
    return 0;
}
