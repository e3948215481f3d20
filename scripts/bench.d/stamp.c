/* stamp: the one program of the bench's image, static. Its first act is to say when it runs, so that
 * "until the container's first instruction" needs nothing but its standard output.
 *
 *   stamp hold  TAG       "RUN TAG ns" (CLOCK_BOOTTIME), then waits for SIGTERM or SIGINT
 *   stamp exit  TAG       "RUN TAG ns", then ends with 0
 *   stamp crash TAG MS    "RUN TAG ns", MS milliseconds later "EXIT TAG ns", then ends with 1
 *   stamp flood SIZE N    N lines of SIZE bytes, a write(2) each; then "FLOOD SIZE ns", how long they took, on
 *                         standard error
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void say(const char *word, const char *tag) {
    char line[128];
    int n = snprintf(line, sizeof line, "%s %.60s %lld\n", word, tag, now());
    if (write(1, line, n) != n)
        _exit(3);
}

static void end(int signal) {
    (void)signal;
    _exit(0);
}

static int flood(size_t size, long lines) {
    char line[16 << 10];
    if (size < 2 || size > sizeof line)
        return 2;
    memset(line, 'x', size - 1);
    line[size - 1] = '\n';
    long long began = now();
    for (long n = 0; n < lines; n++)
        for (size_t done = 0; done < size;) {
            ssize_t put = write(1, line + done, size - done);
            if (put <= 0)
                return 3;
            done += put;
        }
    fprintf(stderr, "FLOOD %zu %lld\n", size, now() - began);
    return 0;
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "exit", *tag = argc > 2 ? argv[2] : "-";
    if (!strcmp(how, "flood"))
        return argc == 4 ? flood(strtoul(argv[2], NULL, 10), atol(argv[3])) : 2;
    /* Pid 1 of a namespace does not get a signal that it has no handler for. */
    signal(SIGTERM, end);
    signal(SIGINT, end);
    say("RUN", tag);
    if (!strcmp(how, "hold"))
        for (;;)
            pause();
    if (!strcmp(how, "crash")) {
        usleep((argc > 3 ? atoi(argv[3]) : 300) * 1000);
        say("EXIT", tag);
        return 1;
    }
    return 0;
}
