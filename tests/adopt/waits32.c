/* A 32-bit program without a C library: a child reads a byte, which its parent waits for. */

static long call(long number, long first, long second, long third)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(first), "c"(second), "d"(third)
                     : "memory");
    return result;
}

void _start(void)
{
    char byte;
    /* fork, read, write, exit; waitpid has the number that poll has for 64-bit programs. */
    if (call(2, 0, 0, 0) == 0) {
        call(3, 0, (long)&byte, 1);
        call(1, 0, 0, 0);
    }
    call(7, -1, 0, 0);
    call(4, 1, (long)"done\n", 5);
    call(1, 0, 0, 0);
}
