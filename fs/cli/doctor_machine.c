/* SPDX-License-Identifier: MIT */
#include "fs/cli/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fs/host/namespace.h"
#include "unshard.h"

#define FUSECTL_SUPER_MAGIC 0x65735543
#define DESCRIPTORS_WANTED 4096
/* The buffers of a mount by default, and what else its daemon takes. */
#define DAEMON_BYTES (UINT64_C(320) << 20)

static void check_device(struct doctor *doctor)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    int number = errno;
    if (fd >= 0) {
        close(fd);
        doctor_add(doctor, "fuse-device", FINDING_GOOD, NULL, "/dev/fuse can be opened");
    } else if (number == ENOENT) {
        doctor_add(doctor, "fuse-device", FINDING_PROBLEM,
                   "on a host 'modprobe fuse'; a container is given it, with docker --device "
                   "/dev/fuse",
                   "there is no /dev/fuse");
    } else {
        doctor_add(doctor, "fuse-device", FINDING_PROBLEM,
                   number == ENODEV || number == ENXIO
                       ? "'modprobe fuse'"
                       : "'chmod 666 /dev/fuse' on a host; in a container the device has to be "
                         "allowed, not only be there",
                   "/dev/fuse cannot be opened: %s", strerror(number));
    }
}

static bool may_mount(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
    return syscall(SYS_capget, &header, sets) == 0 && (sets[0].effective >> CAP_SYS_ADMIN & 1);
}

/* Where a program is found, in PATH or where libfuse was built to look; false: nowhere. */
static bool find_program(const char *name, char out[PATH_MAX])
{
    const char *list = getenv("PATH");
    char *copy = strdup(list ? list : "/usr/bin:/bin"), *rest = copy;
    bool found = false;
    for (char *folder; copy && !found && (folder = strsep(&rest, ":"));)
        found = snprintf(out, PATH_MAX, "%s/%s", folder, name) < PATH_MAX && access(out, X_OK) == 0;
    free(copy);
    return found;
}

static void check_fusermount(struct doctor *doctor)
{
    char path[PATH_MAX];
    struct stat status;
    if (!find_program("fusermount3", path))
        doctor_add(doctor, "mounting", FINDING_PROBLEM, "'apt install fuse3'",
                   "fusermount3 is not installed, and only root can mount without it");
    else if (stat(path, &status) != 0 || status.st_uid != 0 || !(status.st_mode & S_ISUID))
        doctor_add(doctor, "mounting", FINDING_PROBLEM, "'chown root, chmod u+s' for it",
                   "%.200s is not set-user-ID root, so it cannot mount", path);
    else if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)
        doctor_add(doctor, "mounting", FINDING_PROBLEM,
                   "allow it for this service or container (NoNewPrivileges=no; "
                   "allowPrivilegeEscalation: true)",
                   "programs gain no privileges here, so fusermount3 cannot mount");
    else
        doctor_add(doctor, "mounting", FINDING_GOOD, NULL, "by fusermount3");
}

static void check_mounting(struct doctor *doctor)
{
    if (may_mount())
        doctor_add(doctor, "mounting", FINDING_GOOD, NULL, "this process may mount");
    else if (geteuid() == 0)
        doctor_add(doctor, "mounting", FINDING_PROBLEM,
                   "give the container CAP_SYS_ADMIN: docker --cap-add SYS_ADMIN",
                   "this root may not mount: it has no CAP_SYS_ADMIN");
    else
        check_fusermount(doctor);
}

static void check_run(struct doctor *doctor)
{
    struct unshard_error error = {0};
    if (namespace_check(&error) == 0)
        doctor_add(doctor, "run", FINDING_GOOD, NULL, "'unshard run' can make its namespace");
    else
        doctor_add(doctor, "run", FINDING_NOTE, "that, or 'unshard mount' instead of 'unshard run'",
                   "%s", error.message);
}

/* Whether fuse.conf has a line that says just this word. */
static bool configured(const char *word)
{
    char line[256];
    bool found = false;
    FILE *file = fopen("/etc/fuse.conf", "re");
    while (file && !found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "#\n")] = '\0';
        char *first = line + strspn(line, " \t");
        found = !strncmp(first, word, strlen(word)) &&
                first[strlen(word) + strspn(first + strlen(word), " \t")] == '\0';
    }
    if (file)
        fclose(file);
    return found;
}

static void check_other_users(struct doctor *doctor)
{
    if (may_mount() || configured("user_allow_other"))
        doctor_add(doctor, "other-users", FINDING_GOOD, NULL, "allow_other can be used");
    else
        doctor_add(doctor, "other-users", FINDING_NOTE,
                   "a line 'user_allow_other' in /etc/fuse.conf",
                   "allow_other is refused to this user: nobody else can read the mount");
}

static void check_control(struct doctor *doctor)
{
    struct statfs status;
    bool mounted =
        statfs("/sys/fs/fuse/connections", &status) == 0 && status.f_type == FUSECTL_SUPER_MAGIC;
    doctor_add(doctor, "fusectl", mounted ? FINDING_GOOD : FINDING_NOTE,
               mounted ? NULL : "'mount -t fusectl none /sys/fs/fuse/connections'",
               mounted ? "a mount that hangs can be aborted"
                       : "/sys/fs/fuse/connections is not mounted: without it only root can end a "
                         "mount that hangs");
}

static void check_kernel(struct doctor *doctor)
{
    struct utsname name;
    if (uname(&name) != 0)
        return;
    char *rest;
    unsigned long version = 1000 * strtoul(name.release, &rest, 10);
    version += *rest == '.' ? strtoul(rest + 1, NULL, 10) : 0;
    if (version < 5 * 1000 + 2)
        doctor_add(doctor, "kernel", FINDING_PROBLEM, "Linux 5.15 or later",
                   "Linux %.64s drops the pages of a file whenever it looks at it", name.release);
    else if (version < 6 * 1000 + 1)
        doctor_add(doctor, "kernel", FINDING_NOTE, "Linux 6.1 or later",
                   "Linux %.64s does not tell how files are read past the page cache, and may "
                   "drop a file's pages with its inode",
                   name.release);
    else
        doctor_add(doctor, "kernel", FINDING_GOOD, NULL, "Linux %.64s", name.release);
}

static void check_limits(struct doctor *doctor)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    if (limit.rlim_max < DESCRIPTORS_WANTED)
        doctor_add(doctor, "descriptors", FINDING_NOTE,
                   "a higher hard limit: LimitNOFILE= of the unit, nofile in limits.conf",
                   "at most %llu files can be open: shards beyond that are opened again and again",
                   (unsigned long long)limit.rlim_max);
    else
        doctor_add(doctor, "descriptors", FINDING_GOOD, NULL, "%llu files can be open",
                   (unsigned long long)limit.rlim_max);
}

static void check_memory(struct doctor *doctor)
{
    char bytes[UNSHARD_HUMAN_CAPACITY];
    uint64_t available = unshard_available_memory();
    unshard_human_bytes(bytes, available);
    if (available < DAEMON_BYTES)
        doctor_add(doctor, "memory", FINDING_PROBLEM,
                   "raise the limit of the control group (MemoryMax=, resources.limits.memory), or "
                   "say a smaller buffer=",
                   "%s of memory are left, less than the buffers of a mount take", bytes);
    else
        doctor_add(doctor, "memory", FINDING_GOOD, NULL, "%s are left for page cache", bytes);
}

static void check_cache(struct doctor *doctor)
{
    struct unshard_error error = {0};
    if (unshard_cache_check(&error) == 0)
        doctor_add(doctor, "cache", FINDING_GOOD, NULL, "digests of chunks can be kept");
    else
        doctor_add(doctor, "cache", FINDING_NOTE,
                   "a directory of this user's own in UNSHARD_CACHE_DIR",
                   "digests of chunks cannot be kept, so each mount reads a shard to its end "
                   "before it serves it: %.200s",
                   error.message);
}

void doctor_check_machine(struct doctor *doctor)
{
    check_device(doctor);
    check_mounting(doctor);
    check_run(doctor);
    check_other_users(doctor);
    check_control(doctor);
    check_kernel(doctor);
    check_limits(doctor);
    check_memory(doctor);
    check_cache(doctor);
}
