/*
 * Sends each byte back that it receives on its standard input, a socket: receives KIND.
 *
 * read: by a blocking read.  epoll: by an edge-triggered epoll, read until there is no more.
 * threads: one thread reads, and hands over to another, which answers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_uint count;
static char handed[256];

static void answer(char byte)
{
    if (write(0, &byte, 1) != 1)
        _exit(1);
}

static void *answerer(void *unused)
{
    for (unsigned done = 0;; done++) {
        while (atomic_load(&count) == done)
            syscall(SYS_futex, &count, FUTEX_WAIT_PRIVATE, done, NULL, NULL, 0);
        answer(handed[done % sizeof handed]);
    }
    return unused;
}

int main(int words, char **argv)
{
    char byte;
    pthread_t thread;
    int threads = words > 1 && strcmp(argv[1], "threads") == 0;

    if (words > 1 && strcmp(argv[1], "epoll") == 0) {
        int ep = epoll_create1(0);
        struct epoll_event event = {.events = EPOLLIN | EPOLLET};
        epoll_ctl(ep, EPOLL_CTL_ADD, 0, &event);
        for (;;) {
            ssize_t size;
            if (epoll_wait(ep, &event, 1, -1) != 1)
                continue;
            while ((size = recv(0, &byte, 1, MSG_DONTWAIT)) == 1)
                answer(byte);
            if (size == 0)
                return 0;
        }
    }
    if (threads)
        pthread_create(&thread, NULL, answerer, NULL);
    while (read(0, &byte, 1) == 1) {
        if (!threads) {
            answer(byte);
            continue;
        }
        handed[atomic_load(&count) % sizeof handed] = byte;
        atomic_fetch_add(&count, 1);
        syscall(SYS_futex, &count, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
    return 0;
}
