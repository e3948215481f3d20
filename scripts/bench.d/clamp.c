/* clamp: podman asks for more open files and processes than a host without CAP_SYS_RESOURCE may
 * grant, and then runs nothing. Built as a program it runs crun, with itself built as a library
 * (-DLIBRARY) preloaded, where a limit that is refused becomes the hard limit that there is.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef LIBRARY
static int set(int which, const struct rlimit *wanted) {
    struct rlimit now;
    if (!syscall(SYS_prlimit64, 0, which, wanted, 0))
        return 0;
    if (syscall(SYS_prlimit64, 0, which, 0, &now))
        return -1;
    now.rlim_cur = now.rlim_max;
    return syscall(SYS_prlimit64, 0, which, &now, 0) ? -1 : 0;
}
int setrlimit(__rlimit_resource_t which, const struct rlimit *wanted) { return set(which, wanted); }
int setrlimit64(__rlimit_resource_t which, const struct rlimit64 *wanted) { return set(which, (const void *)wanted); }
#else
int main(int argc, char **argv) {
    (void)argc;
    setenv("LD_PRELOAD", LIBRARY_PATH, 1);
    execv("/usr/bin/crun", argv);
    perror("/usr/bin/crun");
    return 127;
}
#endif
