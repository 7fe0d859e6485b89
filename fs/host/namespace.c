/* SPDX-License-Identifier: MIT
 *
 * The numbers of users and groups. A user namespace knows those that are mapped into it. Whoever
 * has CAP_SETUID and CAP_SETGID outside, as root of a container has, may have all of them mapped,
 * by a process that stays outside. Anybody else has his own alone, written from within; groups
 * beside it are shown as "nogroup" then, and give the same rights on files as before.
 */
#include "fs/host/namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/host/bounded_run.h"
#include "fs/host/namespace_reason.h"
#include "fs/host/write_whole.h"

#define CHECK_MS 5000

static uint64_t effective_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &header, sets))
        return 0;
    return sets[0].effective | (uint64_t)sets[1].effective << 32;
}

static uint64_t bounding_set(void)
{
    uint64_t set = 0;
    for (int capability = 0; capability < 64; capability++)
        if (prctl(PR_CAPBSET_READ, capability) == 1)
            set |= UINT64_C(1) << capability;
    return set;
}

/* ---- numbers of users and groups ---------------------------------------------------------------
 */

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    /* The kernel takes a map in one piece. */
    int result = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return result;
}

/* The numbers that this process's namespace has, each as itself. Lines that do not fit are left
 * out. */
static void own_map(const char *path, char *out, size_t capacity)
{
    char line[128];
    size_t used = 0;
    FILE *file = fopen(path, "re");
    *out = '\0';
    while (file && fgets(line, sizeof line, file)) {
        char *rest;
        unsigned long inside = strtoul(line, &rest, 10);
        strtoul(rest, &rest, 10); /* what it is outside of this namespace */
        unsigned long count = strtoul(rest, NULL, 10);
        int length = snprintf(out + used, capacity - used, "%lu %lu %lu\n", inside, inside, count);
        if (length < 0 || (size_t)length >= capacity - used) {
            out[used] = '\0';
            break;
        }
        used += (size_t)length;
    }
    if (file)
        fclose(file);
}

/* In a process outside: maps all numbers for process `pid`. */
static int map_all(pid_t pid)
{
    static const char *const names[] = {"gid_map", "uid_map"};
    int result = 0;
    for (int i = 0; !result && i < 2; i++) {
        char path[64], map[2048];
        snprintf(path, sizeof path, "/proc/self/%s", names[i]);
        own_map(path, map, sizeof map);
        snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, names[i]);
        result = write_file(path, map);
    }
    return result;
}

/* From within: the caller's own numbers alone. */
static int map_own(uid_t uid, gid_t gid)
{
    char line[64];
    int result = write_file("/proc/self/setgroups", "deny");
    if (result && result != -ENOENT)
        return result;
    snprintf(line, sizeof line, "%u %u 1\n", gid, gid);
    result = write_file("/proc/self/gid_map", line);
    if (result)
        return result;
    snprintf(line, sizeof line, "%u %u 1\n", uid, uid);
    return write_file("/proc/self/uid_map", line);
}

struct mapper {
    pid_t process; /* 0: there is nobody */
    int link;
};

/* In the process that maps: once it gets a byte, which it sends back when it could. */
static void run_mapper(pid_t pid, int link)
{
    char byte;
    if (read(link, &byte, 1) == 1 && map_all(pid) == 0 && send(link, &byte, 1, MSG_NOSIGNAL) < 0)
        errno = 0; /* nobody waits any more */
}

/* Forks who can map all numbers of this process when that has its namespace. */
static struct mapper fork_mapper(void)
{
    const uint64_t needed = UINT64_C(1) << CAP_SETUID | UINT64_C(1) << CAP_SETGID;
    pid_t self = getpid();
    int ends[2];
    if ((effective_capabilities() & needed) != needed ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return (struct mapper){0, -1};
    pid_t child = fork();
    if (child == 0) {
        close(ends[1]);
        run_mapper(self, ends[0]);
        _exit(0);
    }
    close(ends[0]);
    if (child > 0)
        return (struct mapper){child, ends[1]};
    close(ends[1]);
    return (struct mapper){0, -1};
}

/* Has the mapper do it, if wanted, and end. Whether it did. */
static bool end_mapper(const struct mapper *mapper, bool wanted)
{
    char byte = 'm';
    if (mapper->process <= 0)
        return false;
    bool done = wanted && send(mapper->link, &byte, 1, MSG_NOSIGNAL) == 1 &&
                read(mapper->link, &byte, 1) == 1;
    close(mapper->link);
    while (waitpid(mapper->process, NULL, 0) < 0 && errno == EINTR)
        ;
    return done;
}

static int enter_user_namespace(bool *own_alone, struct unshard_error *error)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    struct mapper mapper = fork_mapper();
    int number = unshare(CLONE_NEWUSER | CLONE_NEWNS) ? errno : 0;
    bool mapped = end_mapper(&mapper, number == 0);
    if (number)
        return namespace_reason("a user namespace", number, error);
    *own_alone = !mapped;
    int result = mapped ? 0 : map_own(uid, gid);
    return result ? namespace_reason("a user namespace with this user in it", -result, error) : 0;
}

/* ---- the namespace -----------------------------------------------------------------------------
 */

int namespace_enter(struct namespace_entry *entry, struct unshard_error *error)
{
    *entry = (struct namespace_entry){.user_namespace = -1, .capability = bounding_set()};
    int result = 0;
    entry->mapped = !(effective_capabilities() >> CAP_SYS_ADMIN & 1);
    if (entry->mapped)
        result = enter_user_namespace(&entry->own_alone, error);
    else if (unshare(CLONE_NEWNS))
        result = namespace_reason("a mount namespace", errno, error);
    if (result)
        return result;
    if (mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL))
        return namespace_reason("a mount namespace of one's own", errno, error);
    if (!entry->mapped)
        return 0;
    entry->user_namespace = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
    return entry->user_namespace < 0
               ? namespace_reason("a user namespace that can be named", errno, error)
               : 0;
}

int namespace_mount(const char *path, const char *fsname, int *device, int *root,
                    struct unshard_error *error)
{
    char options[160];
    *root = -1;
    *device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (*device < 0)
        return namespace_reason_device(errno, error);
    snprintf(options, sizeof options,
             "fd=%d,rootmode=%o,user_id=%u,group_id=%u,default_permissions,allow_other", *device,
             (unsigned)S_IFDIR, geteuid(), getegid());
    if (mount(fsname, path, "fuse.unshard", MS_RDONLY | MS_NOSUID | MS_NODEV, options) == 0)
        *root = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (*root >= 0)
        return 0;
    int number = errno;
    close(*device);
    *device = -1;
    return namespace_reason("a mount in a namespace of one's own", number, error);
}

void namespace_restrict(struct namespace_entry *entry)
{
    if (entry->user_namespace >= 0)
        close(entry->user_namespace);
    entry->user_namespace = -1;
    for (int capability = 0; entry->mapped && capability < 64; capability++)
        if (!(entry->capability >> capability & 1))
            prctl(PR_CAPBSET_DROP, capability);
}

/* ---- whether it can be had ---------------------------------------------------------------------
 */

static int try_to_enter(void *context)
{
    int *end = context;
    struct namespace_entry entry;
    struct unshard_error error = {0};
    int result = namespace_enter(&entry, &error);
    if (result)
        write_whole(*end, (const char *)&error, sizeof error);
    return result ? 1 : 0;
}

int namespace_check(struct unshard_error *error)
{
    int ends[2];
    struct unshard_error said = {0};
    if (pipe2(ends, O_CLOEXEC))
        return unshard_error_set(error, "namespace", errno, "%s", strerror(errno));
    int result = bounded_run(try_to_enter, &ends[1], ends[1], CHECK_MS);
    close(ends[1]);
    bool told = result != 0 && read(ends[0], &said, sizeof said) == (ssize_t)sizeof said;
    close(ends[0]);
    if (result == 0)
        return 0;
    if (!told)
        return unshard_error_set(error, "namespace", result < 0 ? -result : EIO,
                                 "trying to make a namespace was cut short");
    said.message[sizeof said.message - 1] = '\0';
    return unshard_error_set(error, "namespace", said.errno_value, "%s", said.message);
}
