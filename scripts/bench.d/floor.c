/* floor: what the kernel itself charges for a pod: the same namespaces, mounts, control groups and
 * filter as a container needs, with nothing decided, recorded or read.
 *
 *   floor LOWER SCRATCH GROUP chain N   N sidecars and then main, each begun when the former's exec happened
 *   floor LOWER SCRATCH GROUP crash     one container that crashes after 300 ms and is made anew once
 *
 * LOWER is a root filesystem with /bin/stamp; SCRATCH an empty folder for writable layers; GROUP the
 * name of the pod's control group. Prints "T0 x ns" (CLOCK_BOOTTIME) before its first step; the
 * containers print after it. Holds until its standard input ends, then removes all that it made.
 * Limits: the cpuset hierarchy of v1 is left out, and no traffic leaves the pod (only lo is up).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <mntent.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64, INSTRUCTIONS = 450 };
static const char *lower, *scratch, *group;
static char *hierarchies[32];
static int hierarchy_count, v2;

#define CHECK(call) do { if ((long)(call) < 0) fail(#call, __LINE__); } while (0)

static void fail(const char *what, int line) {
    fprintf(stderr, "floor.c:%d: %s: %s\n", line, what, strerror(errno));
    _exit(1);
}

/* A path in one of eight buffers that are used in turn. */
static char *path(const char *format, ...) {
    static char buffers[8][4096];
    static int next;
    va_list arguments;
    char *out = buffers[next++ & 7];
    va_start(arguments, format);
    vsnprintf(out, sizeof buffers[0], format, arguments);
    va_end(arguments);
    return out;
}

static int put(const char *file, const char *text) {
    int f = open(file, O_WRONLY | O_CLOEXEC), n;
    if (f < 0)
        return -1;
    n = write(f, text, strlen(text));
    close(f);
    return n;
}

static void find_hierarchies(void) {
    FILE *mounts = setmntent("/proc/self/mounts", "r");
    struct mntent *m;
    while ((m = getmntent(mounts)))
        if (!strcmp(m->mnt_type, "cgroup") && !hasmntopt(m, "cpuset") && hierarchy_count < 32)
            hierarchies[hierarchy_count++] = strdup(m->mnt_dir);
        else if (!strcmp(m->mnt_type, "cgroup2") && !strcmp(m->mnt_dir, "/sys/fs/cgroup")) {
            hierarchies[hierarchy_count++] = strdup(m->mnt_dir);
            v2 = 1;
        }
    endmntent(mounts);
}

static void make_groups(const char *name) {
    for (int i = 0; i < hierarchy_count; i++)
        CHECK(mkdir(path("%s/%s", hierarchies[i], name), 0755));
}

static void delegate(const char *name) {
    if (v2)
        put(path("/sys/fs/cgroup/%s/cgroup.subtree_control", name), "+cpu +memory +pids");
}

static void limit(const char *name) {
    for (int i = 0; i < hierarchy_count; i++) {
        const char *h = hierarchies[i];
        put(path("%s/%s/pids.max", h, name), "1000");
        put(path("%s/%s/%s", h, name, v2 ? "cpu.weight" : "cpu.shares"), "2");
        put(path("%s/%s/%s", h, name, v2 ? "memory.max" : "memory.limit_in_bytes"), "1073741824");
    }
}

/* A thread that moves itself by `tasks` spares v1 the wait for an RCU grace period. */
static void enter_groups(const char *name) {
    for (int i = 0; i < hierarchy_count; i++)
        CHECK(put(path("%s/%s/%s", hierarchies[i], name, v2 ? "cgroup.procs" : "tasks"), "0"));
}

static void remove_groups(const char *name) {
    for (int i = 0; i < hierarchy_count; i++)
        for (int tries = 0; rmdir(path("%s/%s", hierarchies[i], name)) && errno == EBUSY && tries < 2000; tries++)
            usleep(500);
}

static void make_root(const char *name) {
    static const struct { const char *name; int major, minor; } nodes[] = {
        {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
    const char *root = path("%s/%s/m", scratch, name);
    CHECK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
    CHECK(mount("overlay", root, "overlay", 0, path("lowerdir=%s,upperdir=%s/%s/u,workdir=%s/%s/w,volatile", lower,
                                                    scratch, name, scratch, name)));
    CHECK(chdir(root));
    CHECK(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
    CHECK(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=64k"));
    for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++)
        CHECK(mknod(path("dev/%s", nodes[i].name), S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
    CHECK(mkdir("dev/pts", 0755));
    CHECK(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"));
    CHECK(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, 0));
    CHECK(syscall(SYS_pivot_root, ".", "."));
    CHECK(umount2(".", MNT_DETACH));
    CHECK(chdir("/"));
}

static void filter(void) {
    static struct sock_filter code[INSTRUCTIONS];
    struct sock_fprog program = {INSTRUCTIONS, code};
    code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 1; i < INSTRUCTIONS - 1; i++)
        code[i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 10000 + i, 0, 0);
    code[INSTRUCTIONS - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

/* Makes one container and returns when its exec has happened. */
static pid_t container(const char *name, const char *how, const char *tag) {
    char full[256], byte;
    int done[2];
    struct clone_args arguments = {.flags = CLONE_NEWNS | CLONE_NEWPID, .exit_signal = SIGCHLD};
    snprintf(full, sizeof full, "%s/%s", group, name);
    CHECK(mkdir(path("%s/%s", scratch, name), 0755));
    for (const char *d = "muw"; *d; d++)
        CHECK(mkdir(path("%s/%s/%c", scratch, name, *d), 0755));
    make_groups(full);
    limit(full);
    CHECK(pipe2(done, O_CLOEXEC));
    pid_t pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    CHECK(pid);
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        enter_groups(full);
        make_root(name);
        filter();
        execl("/bin/stamp", "stamp", how, tag, "300", (char *)0);
        fail("exec /bin/stamp", __LINE__);
    }
    close(done[1]);
    if (read(done[0], &byte, 1) != 0)
        fail("the container's pipe", __LINE__);
    close(done[0]);
    return pid;
}

static void remove_container(const char *name) {
    char full[256];
    snprintf(full, sizeof full, "%s/%s", group, name);
    remove_groups(full);
    for (const char *const *d = (const char *const[]){"w/work/incompat/volatile/dirty", "w/work/incompat/volatile",
             "w/work/incompat", "w/work", "w", "u", "m", 0}; *d; d++)
        remove(path("%s/%s/%s", scratch, name, *d));
    remove(path("%s/%s", scratch, name));
}

static void make_sandbox(void) {
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int s;
    make_groups(group);
    delegate(".");
    delegate(group);
    limit(group);
    CHECK(unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS));
    CHECK(s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    CHECK(ioctl(s, SIOCSIFFLAGS, &lo));
    close(s);
}

int main(int argc, char **argv) {
    struct timespec t;
    pid_t pids[MOST + 1];
    char name[32], byte;
    if (argc < 5) {
        fputs("usage: floor LOWER SCRATCH GROUP chain N | crash\n", stderr);
        return 2;
    }
    lower = argv[1], scratch = argv[2], group = argv[3];
    int count = 1, crash = !strcmp(argv[4], "crash");
    if (!crash)
        count += argc > 5 ? atoi(argv[5]) : 0;
    if (count > MOST)
        return 2;
    find_hierarchies();
    clock_gettime(CLOCK_BOOTTIME, &t);
    printf("T0 x %lld\n", t.tv_sec * 1000000000LL + t.tv_nsec);
    fflush(stdout);
    make_sandbox();
    if (crash) {
        waitpid(container("c0", "crash", "s0"), 0, 0);
        remove_container("c0");
        pids[0] = container("c0", "hold", "s0");
    } else
        for (int i = 0; i < count; i++) {
            char tag[32];
            snprintf(name, sizeof name, "c%d", i);
            snprintf(tag, sizeof tag, i == count - 1 ? "main" : "s%d", i);
            pids[i] = container(name, "hold", tag);
        }
    while (read(0, &byte, 1) > 0) {
    }
    for (int i = 0; i < count; i++)
        kill(pids[i], SIGKILL);
    for (int i = 0; i < count; i++) {
        waitpid(pids[i], 0, 0);
        snprintf(name, sizeof name, "c%d", i);
        remove_container(name);
    }
    remove_groups(group);
    return 0;
}
