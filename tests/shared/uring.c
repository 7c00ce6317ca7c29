/*
 * Waits for a byte of its standard input by an io_uring: uring FLAGS HOW.
 *
 * FLAGS are those of io_uring_setup.  HOW it learns of the completion: enter, epoll or eventfd; or
 * async, where a worker of the kernel's waits for the byte.
 */
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void must(long result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %ld\n", what, result);
        _exit(2);
    }
}

int main(int count, char **words)
{
    struct io_uring ring;
    struct io_uring_params params = {.flags = strtoul(words[1], NULL, 0), .sq_thread_idle = 50};
    struct io_uring_cqe *done;
    const char *how = words[2];
    char byte;
    int told = eventfd(0, 0), epoll = epoll_create1(0);
    if (count != 3)
        return 2;
    must(io_uring_queue_init_params(8, &ring, &params), "io_uring_queue_init_params");
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
    io_uring_prep_read(entry, 0, &byte, 1, 0);
    if (strcmp(how, "async") == 0)
        entry->flags |= IOSQE_ASYNC;
    if (strcmp(how, "eventfd") == 0)
        must(io_uring_register_eventfd(&ring, told), "io_uring_register_eventfd");
    must(io_uring_submit(&ring), "io_uring_submit");
    printf("%d\n", ring.ring_fd);
    fflush(stdout);
    if (strcmp(how, "epoll") == 0) {
        struct epoll_event event = {.events = EPOLLIN};
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, ring.ring_fd, &event), "epoll_ctl");
        while (epoll_wait(epoll, &event, 1, -1) < 0)
            ;
    } else if (strcmp(how, "eventfd") == 0) {
        uint64_t value;
        must(read(told, &value, sizeof value), "read");
    }
    while (io_uring_wait_cqe(&ring, &done))
        ;
    printf("%d\n", done->res);
    fflush(stdout);
    for (;;)
        pause();
}
