/* reader: how fast container output can become a CRI log if nothing but speed matters: read(2), a buffer,
 * write(2). What it has read and not yet written is lost if it is killed.
 *
 *   reader LOG PROGRAM [ARG...]   the program's standard output, in lines, goes to LOG; its error is ours
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 64 << 10, LINE_MAX_BYTES = 16 << 10, HEAD = 64 };

static char in[CHUNK + LINE_MAX_BYTES], out[4 * sizeof in];

/* Most of a stamp is the same for a whole batch. */
static size_t head(char *to) {
    struct timespec t;
    struct tm day;
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &day);
    size_t n = strftime(to, HEAD, "%Y-%m-%dT%H:%M:%S", &day);
    return n + snprintf(to + n, HEAD - n, ".%09ldZ stdout F ", t.tv_nsec);
}

static void put(int log, const char *from, size_t n) {
    while (n) {
        ssize_t put = write(log, from, n);
        if (put <= 0)
            exit(2);
        from += put, n -= put;
    }
}

int main(int argc, char **argv) {
    int pipes[2];
    if (argc < 3 || pipe(pipes))
        return 2;
    int log = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log < 0)
        return 2;
    pid_t child = fork();
    if (child < 0)
        return 2;
    if (!child) {
        dup2(pipes[1], 1);
        execv(argv[2], argv + 2);
        _exit(127);
    }
    close(pipes[1]);
    size_t have = 0;
    for (ssize_t got; (got = read(pipes[0], in + have, CHUNK)) > 0;) {
        char stamp[HEAD], *from = in, *newline;
        size_t width = head(stamp), made = 0;
        have += got;
        while ((newline = memchr(from, '\n', in + have - from))) {
            size_t n = newline + 1 - from;
            if (made + width + n > sizeof out)
                put(log, out, made), made = 0;
            memcpy(out + made, stamp, width), made += width;
            memcpy(out + made, from, n), made += n;
            from += n;
        }
        put(log, out, made);
        have -= from - in;
        if (have > LINE_MAX_BYTES)
            return 2;
        memmove(in, from, have);
    }
    int status;
    return waitpid(child, &status, 0) == child && status == 0 ? 0 : 2;
}
