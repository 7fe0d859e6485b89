/* SPDX-License-Identifier: MIT */
#include "fs/host/namespace_reason.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The first line of a file of /proc, without its end; false: there is none. */
static bool read_line(const char *path, char *out, size_t capacity)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool read = fgets(out, (int)capacity, file) != NULL;
    fclose(file);
    if (read)
        out[strcspn(out, "\n")] = '\0';
    return read;
}

static bool is_set_to(const char *path, const char *value)
{
    char line[128];
    return read_line(path, line, sizeof line) && !strcmp(line, value);
}

static bool has_filter(void)
{
    char line[128];
    bool found = false;
    FILE *file = fopen("/proc/self/status", "re");
    while (file && !found && fgets(line, sizeof line, file))
        found = !strncmp(line, "Seccomp:\t2", 10);
    if (file)
        fclose(file);
    return found;
}

static bool is_confined(char *profile, size_t capacity)
{
    return read_line("/proc/self/attr/current", profile, capacity) && *profile &&
           strncmp(profile, "unconfined", 10) != 0 && strncmp(profile, "kernel", 6) != 0;
}

/* The root directory is not that of the file system tree. */
static bool is_in_chroot(void)
{
    struct stat own, first;
    return stat("/", &own) == 0 && stat("/proc/1/root/.", &first) == 0 &&
           (own.st_dev != first.st_dev || own.st_ino != first.st_ino);
}

static const char in_chroot[] = "a process in a chroot may not: run it outside of that";

/* Of a refusal; profile: room for a name. */
static const char *refusal(char *profile, size_t capacity)
{
    if (is_set_to("/proc/sys/kernel/unprivileged_userns_clone", "0"))
        return "kernel.unprivileged_userns_clone is 0: as root 'sysctl -w "
               "kernel.unprivileged_userns_clone=1'";
    if (is_set_to("/proc/sys/user/max_user_namespaces", "0"))
        return "user.max_user_namespaces is 0: as root 'sysctl -w user.max_user_namespaces=10000'";
    if (is_set_to("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"))
        return "kernel.apparmor_restrict_unprivileged_userns is 1: as root give unshard an "
               "AppArmor "
               "profile with 'userns,', or 'sysctl -w "
               "kernel.apparmor_restrict_unprivileged_userns=0'";
    if (is_confined(profile, capacity))
        return "a security profile confines this process (/proc/self/attr/current): for a "
               "container "
               "docker --security-opt apparmor=unconfined";
    if (has_filter())
        return "a seccomp filter forbids it, as containers have one: docker --security-opt "
               "seccomp=unconfined or --cap-add SYS_ADMIN, in Kubernetes seccompProfile: "
               "Unconfined";
    if (is_in_chroot())
        return in_chroot;
    return "the kernel does not say why; in a container it needs --cap-add SYS_ADMIN";
}

static const char *limit(void)
{
    if (is_set_to("/proc/sys/user/max_user_namespaces", "0"))
        return "user.max_user_namespaces is 0: as root 'sysctl -w user.max_user_namespaces=10000'";
    if (is_set_to("/proc/sys/user/max_mnt_namespaces", "0"))
        return "user.max_mnt_namespaces is 0: as root 'sysctl -w user.max_mnt_namespaces=10000'";
    return "there are as many as user.max_user_namespaces or user.max_mnt_namespaces allow: as "
           "root 'sysctl -w' a larger number";
}

int namespace_reason(const char *step, int number, struct unshard_error *error)
{
    char profile[256];
    const char *reason;
    switch (number) {
    case EPERM:
    case EACCES:
        reason = refusal(profile, sizeof profile);
        break;
    case ENOSPC:
        reason = limit();
        break;
    case EUSERS:
        reason = "namespaces lie in each other too deeply: start it outside of some of them";
        break;
    case EINVAL:
    case ENOSYS:
        reason = is_in_chroot() ? in_chroot
                                : "this kernel has no such namespaces (CONFIG_USER_NS): run it as "
                                  "root";
        break;
    case ENODEV:
        reason = "this kernel has no FUSE: as root 'modprobe fuse'";
        break;
    default:
        reason = "mount it with 'unshard mount' instead";
        break;
    }
    return unshard_error_set(error, "namespace", number, "cannot make %s: %s: %s", step,
                             strerror(number), reason);
}

int namespace_reason_device(int number, struct unshard_error *error)
{
    const char *reason = "as root 'chmod 666 /dev/fuse'; in a container the device has to be "
                         "allowed: docker --device /dev/fuse";
    if (number == ENOENT)
        reason = "on a host as root 'modprobe fuse'; in a container docker --device /dev/fuse";
    else if (number == ENODEV || number == ENXIO)
        reason = "as root 'modprobe fuse'";
    return unshard_error_set(error, "fuse-device", number, "cannot open /dev/fuse: %s: %s",
                             strerror(number), reason);
}
