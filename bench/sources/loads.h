/* The load's two parts: loads.c makes channels and floods them, trips.c asks and answers. */

#include "channels.h"

struct end {
    int fd;
    int number;        /* of its channel; -1 for an accepted one that has not said */
    int isSource;
    uint64_t messages; /* sent, or received, in this flow */
};

extern enum kind kind;

uint64_t nanoseconds(void);
void trips(int asking, int answering, size_t size, long count);
